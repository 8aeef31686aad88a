"""Packing a record that waits behind a parked key, and back (msgpack)."""

from __future__ import annotations

import msgpack

from choreo.log.port import Record


def pack(record: Record) -> bytes:
    """A record as one value; the format is durable, as the outbox rows' is."""
    packed: bytes = msgpack.packb(record)
    return packed


def unpack(payload: bytes) -> Record:
    """The record that `pack` wrote."""
    topic, partition, offset, timestamp, key, value, headers = msgpack.unpackb(payload)
    return Record(topic, partition, offset, timestamp, key, value, [(name, content) for name, content in headers])
