"""Folding sagas that have changed, and keeping what they turned out to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from choreo.graph import Graph
from choreo.log.port import TopicPartition
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.store.port import Folded, Sightings, Summary, TrackerStore
from choreo.saga.tracker.counting import count_changes
from choreo.saga.tracker.shapes import Shapes
from choreo.saga.tracker.summary import folded

_log = structlog.get_logger("choreo.tracker")


class Folder:
    """Folds sagas of one choreography.

    Attributes:
        committed: what groups have committed, as far as it is known.
        beginnings: the first offsets that the log keeps.
        reached_ms: all that was written before has been read.
    """

    def __init__(self, store: TrackerStore, graph: Graph) -> None:
        self._store, self._graph = store, graph
        self._shapes = Shapes(graph)
        self.committed: dict[tuple[str, TopicPartition], int] = {}
        self.beginnings: Mapping[TopicPartition, int] = {}
        self.reached_ms = 0

    def note(self, committed: Mapping[tuple[str, TopicPartition], int]) -> None:
        """What groups have committed by now."""
        self.committed.update(committed)
        self._shapes.around(self.committed)

    async def fold(self, sagas: Sequence[str], now_ms: int, *, live: bool = False) -> None:
        """Fold these sagas, and keep what they are. What one of them holds may be anything: it must not hold up the others.

        Args:
            live: whether what becomes of them is new, and is to be counted.
        """
        found = await self._store.sightings(sagas)
        around = self.around(now_ms)
        before = await self._store.summaries(found) if live else {}
        await self._store.keep([self._folded(saga, seen, around) for saga, seen in found.items()])
        if live:
            count_changes(before, await self._store.summaries(found))

    def around(self, now_ms: int) -> Surroundings:
        """What is known beside the sagas."""
        return Surroundings(now_ms, self.committed, self.beginnings, self.reached_ms)

    def _folded(self, name: str, seen: Sightings, around: Surroundings) -> Folded:
        known = self._shapes.summary(seen.seen)
        if known is not None:
            return Folded(known, seen.mark, ())
        try:
            saga = fold(seen.seen, self._graph, around)
        except Exception as error:  # noqa: BLE001 - a bug of ours, and a hundred thousand other sagas wait
            _log.exception("a saga cannot be folded", saga=name)
            return Folded(_unfoldable(name, seen, error), seen.mark, ())
        self._shapes.learn(seen.seen, saga, around)
        return folded(saga, seen, self._graph, around)


def _unfoldable(name: str, seen: Sightings, error: Exception) -> Summary:
    """What is to be said of a saga all the same."""
    first = min(seen.seen)
    times = [each.produced_ms for each in seen.seen]
    return Summary(
        saga=name, type=first.type_name, key=first.key, state="stuck",
        reason=f"choreo cannot make it out, which is a bug of choreo's: {type(error).__name__}: {error}"[:300],
        outcome=None, started_ms=min(times), updated_ms=max(times), ended_ms=None, events=len(times), retries=0,
        dead_letters=0, owed=0, services=(), handlers=(), waits_for=(), until_ms=None, error="", parent=None,
        changes_ms=None,
    )  # fmt: skip
