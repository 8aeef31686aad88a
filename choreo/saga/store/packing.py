"""Sagas, events and sightings as a store keeps them. Pure; the format is durable within one store, which can be rebuilt.

An id that is a UUID is 16 bytes, others are text; what most sightings have not is left away at the end.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import msgpack

from choreo.dlq.letters import Place
from choreo.log.port import TopicPartition
from choreo.saga.sighting import Again, Letter, Settled, Sighting

Row: TypeAlias = tuple[bytes, int, int, bytes]
"""A sighting's saga, place, offset, and all else."""

_pack: Callable[[Any], bytes] = msgpack.Packer().pack
_sighting: Callable[[tuple[object, ...]], Sighting] = partial(tuple.__new__, Sighting)  # quicker than its own
_place: Callable[[tuple[str, int, int]], Place] = partial(tuple.__new__, Place)
_LENGTH, _BYTES = 36, 16
TEXT = b"\xff" * 8
"""Begins the key of a saga whose id is no UUID; UTF-8 has no such byte."""
_PLAIN = 8
"""How many elements the sighting of a plain event has."""


def compact(text: str) -> str | bytes:
    """A UUID in its usual spelling as its bytes; other texts as they are."""
    if len(text) == _LENGTH and text[8] == text[13] == text[18] == text[23] == "-" and text.islower():
        try:
            raw = unhexlify(text.replace("-", ""))
        except ValueError:
            return text
        return raw if len(raw) == _BYTES else text
    return text


def spelled(said: str | bytes) -> str:
    """What `compact` was given."""
    if isinstance(said, str):
        return said
    text = said.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def key_of(saga: str) -> bytes:
    """The key of a saga; no two have the same."""
    said = compact(saga)
    if isinstance(said, bytes):
        return said
    key = TEXT + said.encode()
    return key + b"\xff" if len(key) == _BYTES else key


def event_key(said: str | bytes) -> bytes:
    """The key of an event whose id is compact; as those of sagas."""
    return said if isinstance(said, bytes) else key_of(said)


def saga_of(key: bytes) -> str:
    """The saga of a key."""
    if len(key) == _BYTES:
        return spelled(key)
    return key.removeprefix(TEXT).removesuffix(b"\xff").decode()


def is_stray(event: str | bytes, key: bytes) -> bool:
    """Whether an event is not found by how its saga's key begins."""
    return len(key) != _BYTES or isinstance(event, str) or event[:6] != key[:6]


def trace_of(said: str) -> str | bytes:
    """A W3C `traceparent` of version 0 as its bytes."""
    if len(said) == 55 and said[:3] == "00-" and said[35] == said[52] == "-":  # noqa: PLR2004 - as it is spelled
        try:
            raw = unhexlify(said[3:35] + said[36:52] + said[53:])
        except ValueError:
            return said
        return raw if said == _traceparent(raw) else said
    return said


def _traceparent(said: str | bytes) -> str:
    if isinstance(said, str):
        return said
    text = said.hex()
    return f"00-{text[:32]}-{text[32:48]}-{text[48:]}"


def pack(seen: Sighting, key: bytes, places: Mapping[tuple[str, int], int], names: Mapping[str, int]) -> Row:
    """A sighting as a row; its place and names are known."""
    place, kind, _, event, type_name, source, cause, compensates, parent, produced, written, about, trace, odd, said = (
        seen
    )
    plain = (
        names[type_name],
        names[source],
        compact(event),
        cause and compact(cause),
        produced - written,
        written,
        about,
        trace and trace_of(trace),
    )
    if kind != "event" or compensates or parent or odd:
        rest = (compensates and compact(compensates), parent and compact(parent), odd, kind, said)
        plain = (*plain, *rest)  # type: ignore[assignment]
    return key, places[place[:2]], place[2], _pack(plain)


def unpack(at: TopicPartition, offset: int, packed: bytes, names: Mapping[int, str], *, saga: str) -> Sighting:
    """What `pack` was given."""
    type_name, source, event, cause, delta, written, about, trace, *rest = msgpack.unpackb(packed, use_list=False)
    compensates, parent, odd, kind, said = rest or (None, None, "", "event", None)
    return _sighting(
        (
            _place((*at, offset)),
            kind,
            saga,
            spelled(event),
            names[type_name],
            names[source],
            None if cause is None else spelled(cause),
            None if compensates is None else spelled(compensates),
            None if parent is None else spelled(parent),
            written + delta,
            written,
            about,
            _traceparent(trace),
            odd,
            None if said is None else _said(kind, said),
        )
    )


def _said(kind: str, said: tuple[Any, ...]) -> Again | Letter | Settled:
    if kind == "settled":
        return Settled(*said)
    if kind == "again":
        handler, of, *rest = said
        return Again(handler, Place(*of), *rest)
    letter, handler, of, *rest = said
    return Letter(letter, handler, Place(*of), *rest)


def packed_event(packed: bytes) -> str | bytes:
    """The event's id in a packed sighting, compact."""
    event: str | bytes = msgpack.unpackb(packed, use_list=False)[2]
    return event


def beginnings(prefix: str) -> list[bytes]:
    """How the keys begin of the sagas whose ids begin so: of UUIDs by bytes, of others by text."""
    digits = prefix.replace("-", "")
    whole = digits[: len(digits) // 2 * 2]
    try:
        uuid = [bytes.fromhex(whole)] if digits.isascii() else []
    except ValueError:
        uuid = []
    return [*uuid, TEXT + prefix.encode()]


def after_all(first: bytes) -> bytes:
    """What comes after all that begins so."""
    number = int.from_bytes(first, "big") + 1 if first else 0
    return b"\xff" * 17 if not first or number >> (8 * len(first)) else number.to_bytes(len(first), "big")
