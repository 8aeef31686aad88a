"""Records as values of the store's tables (msgpack). The formats are durable: rows of one release are read by the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from choreo.log.port import NewRecord, Record


def pack(record: Record | Sequence[NewRecord]) -> bytes:
    """A record that waits behind a parked key, or a batch's emitted records, as one value."""
    packed: bytes = msgpack.packb(record)
    return packed


def packer() -> Callable[[Any], bytes]:
    """What packs as `pack` does, without being made anew each time.

    Threads may share it as long as it is msgpack's extension, which keeps Python's lock all the time.
    """
    made: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack
    return made


def emitted(payload: bytes) -> list[NewRecord]:
    """The emitted records that `pack` wrote."""
    return [
        NewRecord(topic, key, value, [(name, content) for name, content in headers], timestamp, partition)
        for topic, key, value, headers, timestamp, partition in msgpack.unpackb(payload)
    ]


def waiting(rows: Sequence[tuple[int | None, bytes]], limit: int) -> list[tuple[int, Record]] | None:
    """The answer of `Store.behind`, from the rows that its query found."""
    return [(number, waiter(packed)) for number, packed in rows[:limit] if number is not None] if rows else None


def waiter(payload: bytes) -> Record:
    """The record that `pack` wrote."""
    topic, partition, offset, timestamp, key, value, headers = msgpack.unpackb(payload)
    return Record(topic, partition, offset, timestamp, key, value, [(name, content) for name, content in headers])
