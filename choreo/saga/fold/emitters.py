"""Who emitted an event, and what is odd about it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

from choreo.graph import HandlerNode, Timing
from choreo.saga.fold.declared import Declared, Nodes
from choreo.saga.fold.events import Raw
from choreo.saga.fold.scene import Scene
from choreo.saga.model import SagaEvent, Surroundings
from choreo.wire.ids import derive_event_id

_MORE = 8
"""How many more events than are there a call may have emitted: some of them may not have been read yet."""
HASH = 14
"""Where the part of a derived id begins that does not depend on a time: of a foreign cause's copies these may differ."""


def explained(name: str, ordered: Sequence[Raw], declared: Declared, around: Surroundings) -> Scene:
    """The events of a saga with who emitted them; what cannot be explained is told apart."""
    here = {raw.seen.event_id: raw for raw in ordered}
    siblings = _Siblings(ordered)
    events: list[SagaEvent] = []
    unexplained: list[tuple[SagaEvent, str]] = []
    lost: list[SagaEvent] = []
    early: list[SagaEvent] = []
    for raw in ordered:
        seen = raw.seen
        cause_id, node = seen.causation_id, declared.event.get(seen.type_name)
        begins = cause_id is None or seen.parent_id is not None or seen.event_id == seen.saga
        cause = here.get(cause_id) if cause_id is not None and not begins else None
        handler, why = (_starter(raw, declared), "") if begins else _emitter(raw, cause, declared, siblings)
        oddities = [seen.oddity] if seen.oddity else []
        if node is None:
            oddities.append(f"no declared event has the type {seen.type_name!r}")
        if why:
            oddities.append(why)
        if raw.others:
            told = sorted(f"{name} of {source}" for name, source in raw.others)
            oddities.append(f"{_TORN}{', '.join(told)}")
        if raw.gone:
            is_gone = around.beginnings.get(raw.places[0].of, 0) > raw.places[0].offset
            oddities.append("its record is no longer in the log" if is_gone else "its record has not been read")
        event = SagaEvent(
            id=seen.event_id, type=seen.type_name, source=seen.source, cause=cause_id, compensates=seen.compensates,
            parent=seen.parent_id, places=raw.places, produced_ms=seen.produced_ms, written_ms=seen.written_ms,
            key=seen.key, handler=handler, failure=node is not None and node.failure,
            ends=None if node is None else node.ends, trace_id=_trace_id(seen.traceparent), oddity="; ".join(oddities),
        )  # fmt: skip
        events.append(event)
        if begins:
            continue
        if handler is None and why:
            unexplained.append((event, why))
        if cause is None and seen.source in declared.services:  # others may name what is in no log of ours
            (lost if seen.written_ms <= around.reached_ms else early).append(event)
    made = tuple(events)
    return Scene(name, declared, around, made, {event.id: event for event in made}, unexplained, lost, early)


_STRANGER, _UNDECLARED, _TORN = "undeclared service: ", "undeclared emission: ", "another record of its id is a "


def is_unexplained(event: SagaEvent) -> bool:
    """Whether nothing declared explains an event that has a cause."""
    return event.handler is None and any(part.startswith((_STRANGER, _UNDECLARED)) for part in event.oddity.split("; "))


def is_torn(event: SagaEvent) -> bool:
    """Whether records of one event id tell of different events: a call was repeated and came to another result."""
    return _TORN in event.oddity


def _trace_id(traceparent: str) -> str:
    return traceparent[3:35] if len(traceparent) >= 35 else ""  # noqa: PLR2004 - W3C: version-traceid-...


def _starter(raw: Raw, declared: Declared) -> str | None:
    """The batch that began a saga with this event, if one did for sure."""
    if raw.seen.causation_id is None or raw.seen.parent_id is not None:
        return None
    starting = declared.starting.get((raw.seen.source, raw.seen.type_name), ())
    return starting[0].id if len(starting) == 1 else None


def _emitter(raw: Raw, cause: Raw | None, declared: Declared, siblings: _Siblings) -> tuple[str | None, str]:
    """The id of the handler that emitted an event for a cause, and why nothing explains it or it is not certain."""
    source, name = raw.seen.source, raw.seen.type_name
    if cause is None:
        candidates = declared.emitting.get((source, name), ())
    else:
        candidates = declared.emitters.get((source, name, cause.seen.type_name), ())
    if len(candidates) > 1:
        undoing = raw.seen.compensates is not None
        fitting = tuple(each for each in candidates if (each.kind == "compensation") == undoing)
        candidates = fitting or candidates
    if len(candidates) == 1:
        return candidates[0].id, ""
    if candidates:
        return _told_by_id(raw, cause, candidates, siblings)
    if source not in declared.services:
        if name in declared.entries:
            return None, ""
        return None, f"{_STRANGER}nobody declares {source}"
    of = f" for {cause.seen.type_name}" if cause is not None else ""
    return None, f"{_UNDECLARED}no handler of {source} is declared to emit {name or 'it'}{of}"


def _told_by_id(raw: Raw, cause: Raw | None, candidates: Nodes, siblings: _Siblings) -> tuple[str, str]:
    told = siblings.emitter(raw, cause, candidates) if cause is not None else None
    if told is not None:
        return told, ""
    names = " or ".join(each.id for each in candidates)
    return candidates[0].id, f"emitted by {names}: its id does not tell which"


class _Siblings:
    """Tells handlers of one service apart by the ids of what they emit for one cause."""

    def __init__(self, ordered: Iterable[Raw]) -> None:
        self._ordered = ordered
        self._ids: dict[tuple[str, str], frozenset[str]] = {}

    @cached_property
    def _count(self) -> dict[tuple[str, str], int]:
        count: dict[tuple[str, str], int] = defaultdict(int)
        for raw in self._ordered:
            if raw.seen.causation_id is not None:
                count[raw.seen.causation_id, raw.seen.source] += 1
        return count

    def emitter(self, raw: Raw, cause: Raw, candidates: Nodes) -> str | None:
        """Which of these emitted an event, if its id is derived as choreo derives it."""
        at = raw.seen.event_id[HASH:]
        for node in candidates:
            known = self._ids.get((cause.seen.event_id, node.id))
            if known is None:
                most = self._count[cause.seen.event_id, raw.seen.source] + _MORE
                known = self._ids[cause.seen.event_id, node.id] = derived_ids(node, cause.seen.event_id, most)
            if at in known:
                return node.id
            if node.kind == "compensation" and self._undid(node, raw, cause):
                return node.id
        return None

    def _undid(self, node: HandlerNode, raw: Raw, cause: Raw) -> bool:
        """Whether a compensation emitted it when it undid what the event says."""
        scope = f"/{raw.seen.compensates}"
        return raw.seen.event_id[HASH:] in derived_ids(node, cause.seen.event_id, _MORE, scope)


def derived_ids(node: HandlerNode, cause: str, most: int, scope: str = "") -> frozenset[str]:
    """The ends, see `HASH`, of the ids of the first so many events that each call of a handler for a cause emits."""
    scopes = [scope]
    if isinstance(node.rule, Timing):
        scopes += [f"#{number}" for number in range(2, node.rule.times + 1)]
    return frozenset(
        derive_event_id(cause, node.service, node.name + each, ordinal, time_ms=0)[HASH:]
        for each in scopes
        for ordinal in range(most)
    )
