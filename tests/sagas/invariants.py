"""What must be true of every saga when nothing is under way any more. Each finding names the invariant that is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgpack

from choreo.handler import Compensation, Deadline, Join
from choreo.runtime.sagas import deadlines, joins, steps
from choreo.store.port import Note
from tests.sagas.choreography import SERVICES, WITHIN
from tests.sagas.plan import Saga
from tests.sagas.world import World

GRACE_MS = 500
FAILURES = {
    event.contract.type_name for service in SERVICES for event in service.event_classes if event.contract.failure
}
STOPS = {"Completed", "Failed"}
HEARS = {
    handler.rule.step: {event.contract.type_name for event in handler.rule.failures}
    for service in SERVICES
    for handler in service.handlers.values()
    if isinstance(handler.rule, Compensation)
}
"""By step: the failures that undo it."""


class Seen(NamedTuple):
    """An event in the log; times in ms since the epoch."""

    type_name: str
    saga: str
    produced_ms: int
    arrived_ms: int
    data: dict[str, Any]
    compensates: str | None


class Row(NamedTuple):
    """A row of a service's own table, in the order in which they were written."""

    number: int
    kind: str
    handler: str
    saga: str
    token: str
    event_id: str


class Observed(NamedTuple):
    """Everything there is to see at rest: events by id, rows and notes by service."""

    events: dict[str, Seen]
    rows: dict[str, list[Row]]
    notes: dict[str, dict[bytes, list[Note]]]

    def of(self, saga: str, *types: str) -> list[Seen]:
        """The saga's events of these types."""
        return [event for event in self.events.values() if event.saga == saga and event.type_name in types]


async def observe(world: World) -> Observed:
    """Look at log and stores; that every event can be read is an invariant by itself."""
    events = {}
    for record in await world.events():
        about, (_, data) = world.codec.metadata(record), world.codec.decode_any(record)
        produced = round(datetime.fromisoformat(about.time).timestamp() * 1000)
        event = Seen(
            about.type_name, about.correlation_id, produced, world.arrived[about.event_id], data, about.compensates
        )
        events[about.event_id] = event
    rows, notes = {}, {}
    for service in SERVICES:
        rows[service.name] = [Row(*row) for row in world.rows(service.name, "SELECT * FROM effects ORDER BY number")]
        found: dict[bytes, list[Note]] = {}
        for key, *note in world.rows(
            service.name, "SELECT key, number, kind, content FROM choreo_notes ORDER BY key, number"
        ):
            found.setdefault(key, []).append(Note(*note))
        notes[service.name] = found
    return Observed(events, rows, notes)


def findings(world: World, seen: Observed) -> list[str]:
    """What is wrong, one sentence each."""
    found = list(_compensations(seen))
    for name, plan in zip(world.names, world.plan.sagas, strict=True):
        outcomes = seen.of(name, *STOPS)
        if len(outcomes) != 1:
            found.append(f"one outcome: {name} has {[event.type_name for event in outcomes]}")
        elif outcomes[0].type_name == "Completed":
            found += _kept(seen, name, plan)
        else:
            found += [*_undone(seen, name), *_has_reason(seen, name)]
        found += [*_joins(seen, name), *_deadline(seen, name), *_closed(seen, name)]
    return found


def _kept(seen: Observed, saga: str, plan: Saga) -> Iterator[str]:
    """In a completed saga every effect is there once, and nothing is undone."""
    expected = {"charge": 1, "reserve": 1, "ship": 1, "award": min(1, plan.stamps), "stamp": plan.stamps}
    did = Counter(row.handler for row in _rows(seen, saga, "did"))
    for handler, count in expected.items():
        if did[handler] != count:
            yield f"every effect kept once: completed {saga} has {did[handler]} of {count} effects of {handler}"
    for row in _rows(seen, saga, "undid"):
        yield f"every effect kept once: {row.token} of completed {saga} was undone"


def _undone(seen: Observed, saga: str) -> Iterator[str]:
    """In a failed saga every effect is undone once, after it and after a failure."""
    for rows in seen.rows.values():
        did = {row.token: row for row in rows if row.saga == saga and row.kind == "did"}
        undid = Counter(row.token for row in rows if row.saga == saga and row.kind == "undid")
        for token in did:
            if undid[token] != 1:
                yield f"undone exactly once: {token} of failed {saga} was undone {undid[token]} times"
        for row in rows:
            if row.saga != saga or row.kind != "undid":
                continue
            if row.token not in did:
                yield f"nothing undone that never happened: {row.token or row.handler} of {saga}"
            elif row.number < did[row.token].number:
                yield f"undone after its effect: {row.token} of {saga}"
            cause = seen.events.get(row.event_id)
            if cause is None or cause.type_name not in HEARS[row.handler] or cause.saga != saga:
                yield f"undone at a failure: {row.token} of {saga} was undone at {cause and cause.type_name}"


def _has_reason(seen: Observed, saga: str) -> Iterator[str]:
    expired = _rows(seen, saga, "expired")
    if not expired and not seen.of(saga, *FAILURES - STOPS):
        yield f"one outcome: {saga} has failed, and nothing has"


def _joins(seen: Observed, saga: str) -> Iterator[str]:
    completed = bool(seen.of(saga, "Completed"))
    for handler in ("confirm", "report", "ship"):
        fired = sum(row.handler == handler for row in _rows(seen, saga, "joined", "did"))
        if fired > 1 or (completed and not fired):
            yield f"a join fires once: {handler} of {saga} has fired {fired} times"


def _deadline(seen: Observed, saga: str) -> Iterator[str]:
    """It fires once, unless what stops it was produced in time; what arrives after the grace may have come too late."""
    fired = len(_rows(seen, saga, "expired"))
    due_ms = seen.events[f"placed-{saga}"].produced_ms + WITHIN * 1000
    in_time = [event for event in seen.of(saga, *STOPS) if event.produced_ms <= due_ms]
    if fired > 1:
        yield f"a deadline fires once: that of {saga} has fired {fired} times"
    elif fired and any(event.arrived_ms < due_ms + GRACE_MS for event in in_time):
        yield f"no deadline after its unless: that of {saga} fired though {in_time[0].type_name} was produced in time"
    elif not fired and not in_time:
        yield f"a deadline fires once: that of {saga} has not fired"


def _compensations(seen: Observed) -> Iterator[str]:
    """What a compensation emits names the event that it undoes, which is there, and nothing is named twice."""
    marked = Counter(event.compensates for event in seen.events.values() if event.compensates)
    for event_id, event in seen.events.items():
        undoes = event.type_name in {"Refunded", "Recalled", "Revoked"}
        undone = seen.events.get(event.compensates or "")
        if undoes != (event.compensates is not None):
            yield f"compensations are marked: {event.type_name} {event_id} says it undoes {event.compensates}"
        elif undoes and (undone is None or undone.saga != event.saga or undone.data["token"] != event.data["token"]):
            yield f"compensations are marked: {event.type_name} {event_id} names {event.compensates}, which it does not undo"
        elif undoes and marked[event.compensates] > 1:
            yield f"compensations are marked: {event.compensates} is undone by {marked[event.compensates]} events"


def _closed(seen: Observed, saga: str) -> Iterator[str]:
    """No note waits for anything more."""
    failed = bool(seen.of(saga, "Failed"))
    for service in SERVICES:
        notes = seen.notes[service.name]
        for handler in service.handlers.values():
            if isinstance(handler.rule, Join):
                (last,) = notes.get(joins.keys(handler.name)(saga), [None])[-1:]
                if last is None or last.kind.startswith("arrived"):
                    yield f"no note keeps a saga open: {handler} of {saga} still waits"
            elif isinstance(handler.rule, Deadline):
                for note in notes.get(deadlines.keys(handler.name)(saga), []):
                    if _armed(note):
                        yield f"no note keeps a saga open: {handler} of {saga} is still armed"
            elif isinstance(handler.rule, Compensation):
                kinds = [note.kind for note in notes.get(steps.keys(handler.rule.step)(saga), [])]
                if failed != ("failed" in kinds) or (failed and "done" in kinds[kinds.index("failed") :]):
                    yield f"no note keeps a saga open: the notes of {handler.rule.step} of {saga} are {kinds}"


def _armed(note: Note) -> bool:
    return bool(msgpack.unpackb(note.content)[0])


def _rows(seen: Observed, saga: str, *kinds: str) -> list[Row]:
    return [row for rows in seen.rows.values() for row in rows if row.saga == saga and row.kind in kinds]
