"""From a folded saga to what its store keeps: its line in lists, and after which commits it is to be folded again. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from choreo.choreography import retry_topic
from choreo.graph import Graph
from choreo.log.port import TopicPartition
from choreo.saga.model import Duty, Saga, Surroundings
from choreo.saga.sighting import Again, Sighting
from choreo.saga.store.port import Folded, Sightings, Summary, Wait

_LONGEST = 300
"""Characters of an error or a key that lists show."""
_MOST = 2**31 - 1
"""A count that every store keeps."""


def folded(saga: Saga, seen: Sightings, graph: Graph, around: Surroundings) -> Folded:
    """What the store keeps of a saga that was made of these sightings."""
    waits = _waits(saga, seen.seen, graph, around.committed)
    return Folded(summary_of(saga), seen.mark, waits)


def summary_of(saga: Saga) -> Summary:
    """A saga's line in lists."""
    duties = saga.duties
    emitters = {event.handler.partition(".")[0] if event.handler else event.source for event in saga.events}
    errors = [duty.error for duty in duties if duty.error]
    owed = {each.handler for each in saga.expected if each.handler}
    untils = [each.until_ms for each in saga.expected if each.until_ms is not None]
    return Summary(
        saga=saga.id,
        type=saga.type,
        key=saga.key[:_LONGEST],
        state=saga.state,
        reason=saga.reason,
        outcome=saga.outcome,
        started_ms=saga.started_ms,
        updated_ms=saga.updated_ms,
        ended_ms=saga.ended_ms,
        events=len(saga.events),
        retries=min(_MOST, sum(max(0, duty.attempts - 1) + duty.redrives for duty in duties)),
        dead_letters=sum(duty.status == "dead" for duty in duties),
        owed=sum(each.status == "owed" for each in saga.ledger),
        services=tuple(sorted(emitters | {duty.handler.partition(".")[0] for duty in duties})),
        handlers=tuple(sorted(owed)),
        waits_for=tuple(sorted({name for each in saga.expected for name in each.what})),
        until_ms=min(untils, default=None),
        error=errors[-1][:_LONGEST] if errors else "",
        parent=saga.parent,
        changes_ms=saga.changes_ms,
    )


def _waits(
    saga: Saga, seen: list[Sighting], graph: Graph, committed: Mapping[tuple[str, TopicPartition], int]
) -> tuple[Wait, ...]:
    """The commits that change it: of who has an event of it, or of its retries, still to read."""
    found: list[Wait] = []
    groups: dict[str, set[str]] = {}
    for duty in saga.duties:
        groups.setdefault(duty.event, set()).add(_group(duty))
    for event in saga.events:
        for at in event.places:
            found += (Wait(group, at.of, at.offset) for group in sorted(groups.get(event.id, ())))
    for each in seen:
        if isinstance(each.said, Again):
            group = each.said.handler.partition(".")[0]
            if each.place.topic == retry_topic(group):
                found.append(Wait(group, each.place.of, each.place.offset))
    known = frozenset(graph.services)
    return tuple(
        wait for wait in found if wait.group in known and committed.get((wait.group, wait.at), -1) <= wait.offset
    )


def _group(duty: Duty) -> str:
    return duty.handler.partition(".")[0]
