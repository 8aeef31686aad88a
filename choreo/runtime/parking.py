"""Parked keys, and the records of the retry topic: their names and headers. Pure.

A record comes back through `retry.<service>` for one handler of that service: after a long wait, redriven, or to be
discarded. Key, value, timestamp and headers are the original's; the headers named here come on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from choreo.choreography import retry_topic
from choreo.errors import DecodeError
from choreo.log.port import Headers, NewRecord, Record

OWN_HEADERS = ("choreo.retry.", "choreo.redrive.")
"""What the names of these headers begin with."""


class Returned(NamedTuple):
    """What a record of the retry topic says.

    Attributes:
        record: the original, at its own place and without the headers of the retry topic.
        handler: who is to have it; empty for all handlers of the service that take this event.
        attempt: how often it was called already.
        due_ms: when it is to be called again, ms since the epoch; 0 for now.
        first_failed_ms: when it failed first.
        redrives: how often it was redriven, this time included; 0 if nobody did.
        discard: whether it is not to be run, only what waits behind it.
    """

    record: Record
    handler: str
    attempt: int
    due_ms: int
    first_failed_ms: int
    redrives: int
    discard: bool


def lane_of(handler: str, topic: str, key: bytes) -> bytes:
    """The 16 bytes under which the store knows a parked key: of one handler, for the records of one topic."""
    return blake2b(b"\0".join((handler.encode(), topic.encode(), key)), digest_size=16).digest()


def retry_record(
    service: str,
    record: Record,
    *,
    handler: str,
    attempt: int,
    due_ms: int,
    first_failed_ms: int,
    more: Iterable[tuple[str, str]] = (),
) -> NewRecord:
    """The record for `retry.<service>`; see `Returned`. A redrive adds its own headers as `more`."""
    texts = {
        "choreo.retry.handler": handler,
        "choreo.retry.topic": record.topic,
        "choreo.retry.partition": str(record.partition),
        "choreo.retry.offset": str(record.offset),
        "choreo.retry.attempt": str(attempt),
        "choreo.retry.due": str(due_ms),
        "choreo.retry.first-failed": str(first_failed_ms),
        **dict(more),
    }
    headers = [*_without(record.headers), *((name, text.encode()) for name, text in texts.items())]
    return NewRecord(retry_topic(service), record.key, record.value, headers, record.timestamp)


def returned(record: Record) -> Returned:
    """What a record of the retry topic says.

    Raises:
        DecodeError: it says nothing, or not all.
    """
    texts = {name: value for name, value in record.headers if name.startswith(OWN_HEADERS)}
    try:
        original = record._replace(
            topic=texts["choreo.retry.topic"].decode(),
            partition=int(texts["choreo.retry.partition"]),
            offset=int(texts["choreo.retry.offset"]),
            headers=_without(record.headers),
        )
        return Returned(
            original,
            texts["choreo.retry.handler"].decode(),
            int(texts["choreo.retry.attempt"]),
            int(texts["choreo.retry.due"]),
            int(texts["choreo.retry.first-failed"]),
            int(texts.get("choreo.redrive.count", 0)),
            texts.get("choreo.redrive.discard") == b"1",
        )
    except (KeyError, ValueError) as error:
        raise DecodeError(
            f"record {record.topic}/{record.partition}@{record.offset} is none that choreo wrote",
            why=f"its header {error} is missing" if isinstance(error, KeyError) else str(error),
            remedy="let `choreo dlq redrive` write to this topic, nobody else",
        ) from None


def _without(headers: Headers) -> Headers:
    return [header for header in headers if not header[0].startswith(OWN_HEADERS)]
