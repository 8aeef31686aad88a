"""Steps and what undoes them. Pure.

A step that has taken effect leaves a note with what it emitted. The first failure leaves another one, before its
compensations run or, if there is nothing to undo yet, in place of them: no step starts after it. Both are notes of one
key, so that of a step and a failure at the same moment one comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

import msgpack

from choreo.events import Event
from choreo.log.port import Record
from choreo.observe.w3c import sampled
from choreo.runtime.sagas.memory import Memory
from choreo.runtime.sagas.turn import Emitted
from choreo.store import records
from choreo.wire.envelope import ID, OPTIONAL
from choreo.wire.ids import note_keys

DONE = "done"
_FAILED, _UNDONE = "failed", "undone"
_pack = records.packer()


class Emission(NamedTuple):
    """An event that a step has emitted.

    Attributes:
        record: enough of it to read the event, and its trace if that is recorded.
    """

    type_name: str
    event_id: str
    record: Record


def keys(handler: str) -> Callable[[str], bytes]:
    """Where a step's notes of a saga are."""
    return note_keys("step", handler)


def failure_of(memory: Memory) -> str | None:
    """The id of the failure that made the saga fail for this step, if it has."""
    for note in memory.notes:
        if note.kind == _FAILED:
            return note.content.decode()
    return None


def failed(event_id: str) -> tuple[str, bytes]:
    """The note of a failure."""
    return _FAILED, event_id.encode()


def done(emitted: Emitted, undoes: Container[type[Event]]) -> bytes | None:
    """The content of the note of a step that has taken effect; none if it has emitted nothing that would have to be undone."""
    told = []
    for event, record in emitted:
        if type(event) in undoes:
            topic, _, value, headers, _, _ = record
            each = [event.contract.type_name, headers[ID][1], topic, value]
            for name, header in headers[OPTIONAL:]:
                if name == "traceparent" and sampled(header.decode()):
                    each.append(header)
            told.append(each)
    return _pack(told) if told else None


def undone(event_id: str) -> tuple[str, bytes]:
    """The note of what a compensation has undone, where more is left to undo."""
    return _UNDONE, event_id.encode()


def undone_ids(memory: Memory) -> set[str]:
    """The events of which it is noted that they are undone."""
    return {note.content.decode() for note in memory.notes if note.kind == _UNDONE}


def to_undo(memory: Memory) -> list[list[Emission]]:
    """What each run of the step emitted, last first."""
    done = [msgpack.unpackb(note.content) for note in memory.notes if note.kind == DONE]
    return [
        [
            Emission(
                name, event_id.decode(), Record(topic, 0, 0, 0, None, value, [("traceparent", one) for one in trace])
            )
            for name, event_id, topic, value, *trace in run
        ]
        for run in reversed(done)
    ]
