"""Steps and what undoes them. Pure.

A step that has taken effect leaves a note with what it emitted. The first failure leaves another one, before its
compensations run or, if there is nothing to undo yet, in place of them: no step starts after it. Both are notes of one
key, so that of a step and a failure at the same moment one comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

from choreo.log.port import NewRecord, Record
from choreo.observe.w3c import sampled
from choreo.runtime.sagas.memory import Memory
from choreo.wire.ids import note_key

_DONE, _FAILED, _UNDONE = "done", "failed", "undone"


class Emission(NamedTuple):
    """An event that a step has emitted.

    Attributes:
        record: enough of it to read the event, and its trace if that is recorded.
    """

    type_name: str
    event_id: str
    record: Record


def key(handler: str, saga: str) -> bytes:
    """Where a step's notes of a saga are."""
    return note_key("step", handler, saga)


def failure_of(memory: Memory) -> str | None:
    """The id of the failure that made the saga fail for this step, if it has."""
    for note in memory.notes:
        if note.kind == _FAILED:
            return note.content.decode()
    return None


def failed(event_id: str) -> tuple[str, bytes]:
    """The note of a failure."""
    return _FAILED, event_id.encode()


def done(emitted: Iterable[tuple[str, NewRecord]]) -> tuple[str, bytes]:
    """The note of a step that has taken effect: what it emitted, with the names of the types."""
    return _DONE, msgpack.packb([_told(name, record) for name, record in emitted])


def _told(name: str, record: NewRecord) -> tuple[Any, ...]:
    event_id = traceparent = b""
    for header, value in record.headers:
        if header == "ce_id":
            event_id = value
        elif header == "traceparent":
            traceparent = value
    told = (name, event_id, record.topic, record.value)
    return (*told, traceparent) if traceparent and sampled(traceparent.decode()) else told


def undone(event_id: str) -> tuple[str, bytes]:
    """The note of what a compensation has undone, where more is left to undo."""
    return _UNDONE, event_id.encode()


def undone_ids(memory: Memory) -> set[str]:
    """The events of which it is noted that they are undone."""
    return {note.content.decode() for note in memory.notes if note.kind == _UNDONE}


def to_undo(memory: Memory) -> list[list[Emission]]:
    """What each run of the step emitted, last first."""
    done = [msgpack.unpackb(note.content) for note in memory.notes if note.kind == _DONE]
    return [
        [
            Emission(
                name, event_id.decode(), Record(topic, 0, 0, 0, None, value, [("traceparent", one) for one in trace])
            )
            for name, event_id, topic, value, *trace in run
        ]
        for run in reversed(done)
    ]
