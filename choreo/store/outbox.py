"""Packing a batch's emitted records into one outbox row, and back (msgpack)."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from choreo.log.port import NewRecord


def pack(records: Sequence[NewRecord]) -> bytes:
    """Records as one value; the format is durable: rows of one release are published by the next."""
    packed: bytes = msgpack.packb(records)
    return packed


def unpack(payload: bytes) -> list[NewRecord]:
    """The records that `pack` wrote."""
    return [
        NewRecord(topic, key, value, [(name, content) for name, content in headers], timestamp, partition)
        for topic, key, value, headers, timestamp, partition in msgpack.unpackb(payload)
    ]
