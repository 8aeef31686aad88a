"""Steps and what undoes them. Pure.

A step that has taken effect leaves a note with what it emitted. The first failure leaves another one, before its
compensations run or, if there is nothing to undo yet, in place of them: no step starts after it. Both are notes of one
key, so that of a step and a failure at the same moment one comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from choreo.events import Event
from choreo.log.port import NewRecord, Record
from choreo.runtime.sagas.memory import Memory
from choreo.store import records
from choreo.wire.ids import note_key

_DONE, _FAILED = "done", "failed"


class Undoable(NamedTuple):
    """What one run of a step emitted, to be undone together or one by one."""

    records: list[Record]


def key(handler: str, saga: str) -> bytes:
    """Where a step's notes of a saga are."""
    return note_key("step", handler, saga)


def failure_of(memory: Memory) -> str | None:
    """The id of the failure that made the saga fail for this step, if it has."""
    failed = memory.last(_FAILED)
    return failed.content.decode() if failed else None


def failed(event_id: str) -> tuple[str, bytes]:
    """The note of a failure."""
    return _FAILED, event_id.encode()


def done(emitted: Sequence[NewRecord]) -> tuple[str, bytes]:
    """The note of a step that has taken effect."""
    return _DONE, records.pack(emitted)


def to_undo(memory: Memory) -> list[Undoable]:
    """What the step has done, last first."""
    return [
        Undoable([_as_read(record, at) for at, record in enumerate(records.emitted(note.content))])
        for note in reversed(memory.notes)
        if note.kind == _DONE
    ]


def undoable(events: Sequence[Event], emitted: Sequence[NewRecord], undoes: tuple[type[Event], ...]) -> list[NewRecord]:
    """Of what a step emitted, the part that some compensation takes."""
    return [record for event, record in zip(events, emitted, strict=True) if isinstance(event, undoes)]


def _as_read(record: NewRecord, number: int) -> Record:
    return Record(
        record.topic, record.partition or 0, number, record.timestamp or 0, record.key, record.value, record.headers
    )
