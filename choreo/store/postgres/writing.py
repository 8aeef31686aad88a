"""The effects of a transaction as statements: all that most units of work write is one. Pure but for the time of day."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from pydantic_core import to_json

from choreo.log.port import TopicPartition
from choreo.store import ranges, records
from choreo.store.packing import alone, end_to_end, highest, latest, of_keys
from choreo.store.port import Effects
from choreo.store.postgres.connection import Statement
from choreo.store.postgres.opening import Q


def first(effects: Effects, me: str) -> Iterator[Statement]:
    """What seldom is to be written, before the rest: parked keys, and what an owner has survived."""
    if len(effects.behind) + len(effects.unparked) > 1:
        lanes = {park.lane for park in effects.parked} | {lane for lane, _ in effects.behind}
        yield Q["lock_lanes"], {"lanes": b"".join(lanes), "numbers": as_array(effects.unparked)}
    for park in effects.parked:
        values = {**park.at._asdict(), "lane": park.lane, "head": park.head.encode(), "key": park.key}
        yield Q["park"], {**values, "partition": str(park.at.partition), "handler": park.handler}
    for lane, record in effects.behind:
        yield Q["put_behind"], {"lane": lane, "record": records.pack(record)}
    if effects.unparked:
        yield Q["take_behind"], {"numbers": as_array(effects.unparked)}
    if effects.survived:
        yield Q["survived"], {"at": as_json(at._asdict() for at in effects.survived), "me": me}


def unit(effects: Effects) -> Statement:
    """What most transactions write; it returns the outbox row's id."""
    notes = of_keys(effects.notes)
    contents, places = end_to_end([new.note.content for new in notes])
    return Q["commit"], {
        "progress": as_json(
            {**at._asdict(), "watermark": now.watermark, "done": ranges.pack(now.done), "epoch": now.epoch}
            for at, now in sorted(effects.progress.items())
        ),
        "inbox": b"".join(effects.inbox),
        "ticked": as_array(effects.ticked),
        "read_from": as_array(map(as_name, effects.progress)),
        "now": str(int(time.time() * 1000)),
        "records": records.pack(effects.outbox) if effects.outbox else b"",
        "note_keys": b"".join([new.key for new in notes]),
        "notes": as_json(
            {"number": new.note.number, "kind": new.note.kind, "keep": new.keep_ms, "first": first, "length": length}
            for new, (first, length) in zip(notes, places, strict=True)
        ),
        "contents": contents,
    }


def last(effects: Effects) -> Iterator[Statement]:
    """What presupposes the notes of the unit, and timers."""
    notes = of_keys(effects.notes)
    lone = [new for _, new in alone(notes)]
    if notes or effects.forgotten or effects.unset:
        # As for the reader: whatever the server believes of tables that grow faster than it looks. No handler comes after this.
        yield b"SET LOCAL enable_seqscan = off", None
    if notes:
        lasts = highest(notes)
        numbers = as_array(number for _, number in lasts)
        yield Q["refuse_overtaken"], {"keys": b"".join([notes[place].key for place, _ in lasts]), "numbers": numbers}
    if lone:
        numbers = as_array(new.note.number for new in lone)
        yield Q["leave_alone"], {"keys": b"".join([new.key for new in lone]), "numbers": numbers}
    if effects.forgotten:
        yield Q["forget"], {"keys": b"".join(effects.forgotten)}
    if effects.timers:
        timers = latest(effects.timers)
        contents, places = end_to_end([records.pack(timer.record) for timer in timers])
        about = [
            {**timer.at._asdict(), "due": timer.due_ms, "handler": timer.handler, "first": first, "length": length}
            for timer, (first, length) in zip(timers, places, strict=True)
        ]
        ids = b"".join([timer.timer_id for timer in timers])
        yield Q["set_timers"], {"ids": ids, "timers": as_json(about), "records": contents}
    if effects.unset:
        yield Q["unset_timers"], {"ids": b"".join(effects.unset)}


def as_json(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as one parameter."""
    return to_json(list(rows)).decode()


def as_array(elements: Iterable[int | str]) -> str:
    """Numbers or names as one parameter; the names need no quotes."""
    return f"{{{','.join(map(str, elements))}}}"


def as_name(at: TopicPartition) -> str:
    """A partition as an element of an array."""
    return f"{at.topic}/{at.partition}"
