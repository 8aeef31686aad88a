"""What was known of a saga at a moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from choreo.dlq.letters import Place
from choreo.saga.sighting import Again, Letter, Settled, Sighting


def seen_until(sightings: Sequence[Sighting], moment_ms: int) -> list[Sighting]:
    """The sightings of records that had been written by then."""
    due = _due(sightings)
    return [seen for seen in sightings if written_ms(seen, due) <= moment_ms]


def written_ms(seen: Sighting, due: Mapping[tuple[str, Place, int, int], int]) -> int:
    """When a record was written, as far as it tells: a retry or a dead letter has the time of its original.

    Args:
        due: when calls were to be repeated, by handler, event, redrives and attempt.
    """
    match seen.said:
        case Letter(failed_ms=failed_ms):
            return failed_ms
        case Settled(at_ms=at_ms):
            return at_ms
        case Again() as again:  # written when the call that the one before had announced failed
            before = due.get((again.handler, again.of, again.redrives, again.attempt - 1), 0)
            return max(again.first_failed_ms, before, seen.written_ms)
    return seen.written_ms


def _due(sightings: Sequence[Sighting]) -> dict[tuple[str, Place, int, int], int]:
    agains = [seen.said for seen in sightings if isinstance(seen.said, Again)]
    return {(again.handler, again.of, again.redrives, again.attempt): again.due_ms for again in agains}
