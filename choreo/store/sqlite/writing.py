"""The effects of a transaction as statements: all that most units of work write is one."""

from __future__ import annotations

import sqlite3
from itertools import accumulate
from typing import Any

from pydantic_core import to_json

from choreo.errors import CopyError, FencedError, OvertakenError, ReleasedError
from choreo.log.port import TopicPartition
from choreo.store import ranges, records
from choreo.store.packing import alone, each, end_to_end, in_runs, latest
from choreo.store.port import COPY, Effects
from choreo.store.sql import load_queries

_Q = load_queries("choreo.store.sqlite")


def size(effects: Effects) -> int:
    """How much a transaction has to write, in rows and holes."""
    rows = (effects.inbox, effects.outbox, effects.notes, effects.forgotten, effects.timers, effects.unset)
    return sum(map(len, rows)) + sum(len(moved.done) for moved in effects.progress.values())


def is_rare(effects: Effects) -> bool:
    """Whether a transaction has more to write than the one statement of every unit of work."""
    return bool(effects.parked or effects.behind or effects.unparked or effects.survived)


def write(writer: sqlite3.Connection, instance: str, effects: Effects, now_ms: int) -> int | None:
    """Write them, at this time (ms since the epoch); returns the outbox row's number, if there is one.

    Raises:
        FencedError, ReleasedError, OvertakenError, CopyError: see `Store.commit`.
    """
    row_id = _write_unit(writer, effects, now_ms)
    _write_parked(writer, effects)
    if effects.survived:
        writer.executemany(_Q["survived"], [(*at, instance) for at in effects.survived])
    return row_id


def is_owner(writer: sqlite3.Connection, at: TopicPartition, epoch: int) -> bool:
    """Whether nobody has taken this partition over since."""
    return writer.execute(_Q["is_owner"], (*at, epoch)).fetchone() is not None


def _write_unit(writer: sqlite3.Connection, effects: Effects, now_ms: int) -> int | None:
    progress = [(*at, moved.epoch, moved.watermark, ranges.pack(moved.done)) for at, moved in effects.progress.items()]
    row = (
        *(_json(progress), len(progress)),
        *(b"".join(effects.inbox), each(effects.inbox), now_ms),
        *(str(list(effects.ticked)), _json(list(effects.progress))),
        records.pack(effects.outbox) if effects.outbox else None,
        *_notes(effects),
        *_timers(effects),
    )
    try:
        ((row_id,),) = writer.execute(_Q["finish_unit"], row).fetchall()
    except sqlite3.IntegrityError:
        _refuse(writer, effects)
        raise
    return row_id if effects.outbox else None


def _notes(effects: Effects) -> tuple[Any, ...]:
    """The columns of `choreo_unit` about notes; nulls if there is nothing to do."""
    if not effects.notes and not effects.forgotten:
        return (None,) * 6
    notes, runs = in_runs(effects.notes) if effects.notes else ([], [])
    contents, places = end_to_end([note[2] for _, note, _, _ in notes])
    packed = [first << 32 | length for first, length in places]
    begins = accumulate([count for *_, count in runs], initial=0)
    listed = [(*run, begin, packed[begin : begin + count]) for (*run, count), begin in zip(runs, begins, strict=False)]
    lone = [place << 32 | new.note.number for place, new in alone(notes)]
    return (
        *(b"".join([key for key, _, _, _ in notes]), _json(listed), contents),
        str(lone) if lone else None,
        *(b"".join(effects.forgotten), each(effects.forgotten)),
    )


def _timers(effects: Effects) -> tuple[Any, ...]:
    """The columns of `choreo_unit` about timers; nulls if there is nothing to do."""
    if not effects.timers and not effects.unset:
        return (None,) * 5
    timers = latest(effects.timers)
    contents, places = end_to_end([records.pack(timer.record) for timer in timers])
    about = [(*timer.at, timer.due_ms, timer.handler, *place) for timer, place in zip(timers, places, strict=True)]
    return (
        *(b"".join([timer.timer_id for timer in timers]), _json(about), contents),
        *(b"".join(effects.unset), each(effects.unset)),
    )


def _refuse(writer: sqlite3.Connection, effects: Effects) -> None:
    """Say why the unit's statement was refused, if it is one of the reasons of the port."""
    if fenced := [at for at, moved in effects.progress.items() if not is_owner(writer, at, moved.epoch)]:
        raise FencedError(fenced) from None
    for key, note, *_ in effects.notes:
        if writer.execute(_Q["is_noted"], (key, note.number)).fetchone():
            what = f"another instance has written note {note.number} of {key.hex()}, or a later one, first"
            raise OvertakenError(what) from None
    for key in effects.inbox:
        if writer.execute(_Q["is_known"], (key,)).fetchone():
            raise CopyError(COPY) from None


def _write_parked(writer: sqlite3.Connection, effects: Effects) -> None:
    for park in effects.parked:
        writer.execute(_Q["park"], (park.lane, *park.at, park.head, park.handler, park.key))
    for lane, record in effects.behind:
        if not writer.execute(_Q["wait"], (lane,)).rowcount:
            raise ReleasedError(f"the key {lane.hex()} is parked no more")
        writer.execute(_Q["put_behind"], (lane, records.pack(record)))
    for number in effects.unparked:
        if taken := writer.execute(_Q["take_behind"], (number,)).fetchone():
            writer.execute(_Q["wait_no_more"], taken)


def _json(rows: list[Any]) -> str:
    return to_json(rows).decode()
