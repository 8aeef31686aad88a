"""Event ids and inbox keys. Pure: the same arguments give the same id in every process.

New ids are UUIDv7 and derived ones UUIDv8 (RFC 9562): both begin with 48 bits of milliseconds. A derived id inherits
those of its cause, so all ids of a saga lie near its start and B-trees of them grow at one end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b

import uuid_utils

_begins_timed = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[78]").match
_LENGTH = 36
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_event_id() -> str:
    """A new, time-ordered id (UUIDv7)."""
    return str(uuid_utils.uuid7())


def derive_event_id(cause_id: str, service: str, handler: str, ordinal: int, *, time_ms: int) -> str:
    """The id of the event that a service's handler emits as its `ordinal`th (from 0) for a cause (UUIDv8).

    `time_ms`, milliseconds since the epoch, begins the id if the cause's does not begin with a time. It must be the
    same on a re-run, such as the timestamp of the cause's record.
    """
    text = f"{cause_id}\0{service}\0{handler}\0{ordinal}"
    return _uuid8(_time_of(cause_id).lower() or f"{time_ms & 0xFFFFFFFFFFFF:012x}", text)


def inbox_key(source: str, event_id: str, handler: str) -> bytes:
    """The 16 bytes under which a service's inbox keeps that a handler has handled an event.

    The first 6 are the id's own time, so that the inbox grows at one end; without one they are part of the hash.
    """
    digest = blake2b(f"{source}\0{event_id}\0{handler}".encode(), digest_size=16).digest()
    time = _time_of(event_id)
    return bytes.fromhex(time) + digest[6:] if time else digest


def note_key(purpose: str, handler: str, saga: str) -> bytes:
    """The 16 bytes under which a service's store keeps what a handler has to remember of a saga.

    Args:
        purpose: what for; a handler may have to remember several things.
        saga: a correlation id or what else its events have in common; its time begins the key, as in `inbox_key`.
    """
    return note_keys(purpose, handler)(saga)


def note_keys(purpose: str, handler: str) -> Callable[[str], bytes]:
    """What gives the `note_key` of each saga: it is asked for every event."""
    about = f"{purpose}\0{handler}\0"

    def key(saga: str) -> bytes:
        digest = blake2b((about + saga).encode(), digest_size=16).digest()
        return bytes.fromhex(time) + digest[6:] if (time := _time_of(saga)) else digest

    return key


def _time_of(event_id: str) -> str:
    """The 12 hexadecimal digits of milliseconds of a UUIDv7 or v8 in its usual spelling; empty for other ids."""
    return event_id[:8] + event_id[9:13] if len(event_id) == _LENGTH and _begins_timed(event_id) else ""


def _uuid8(time: str, text: str) -> str:
    rest = blake2b(text.encode(), digest_size=10).hexdigest()
    # RFC 9562: version 8 in digit 13, variant 10 in the two high bits of digit 17.
    return f"{time[:8]}-{time[8:]}-8{rest[:3]}-{_VARIANT[rest[3]]}{rest[4:7]}-{rest[7:19]}"
