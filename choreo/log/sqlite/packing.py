"""Record headers as one compact column.

Layout: byte 0 is the width of a value's length (1 or 4 bytes), bytes 1-4 the size of the names, then the names as
JSON, the lengths, and the values one after the other; all numbers little-endian. Records of one kind have the same names, so
these are read and written once.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from itertools import accumulate, pairwise

from choreo.log.port import Headers

_WIDTHS = {1: "B", 4: "I"}


def pack(headers: Headers) -> bytes | None:
    """Headers as bytes; None if there are none."""
    if not headers:
        return None
    names, values = zip(*headers, strict=True)
    lengths = [len(value) for value in values]
    width = 1 if max(lengths) < 256 else 4  # noqa: PLR2004 - what one byte holds
    return b"".join((_prefix(width, names), _lengths(width, len(lengths)).pack(*lengths), *values))


def unpack(packed: bytes | None) -> Headers:
    """What `pack` has packed."""
    if packed is None:
        return []
    width, size = _PREFIX.unpack_from(packed)
    names = _names(packed[5 : 5 + size])
    lengths = _lengths(width, len(names))
    ends = accumulate(lengths.unpack_from(packed, 5 + size), initial=5 + size + lengths.size)
    return [(name, packed[begin:end]) for name, (begin, end) in zip(names, pairwise(ends), strict=True)]


_PREFIX = struct.Struct("<BI")


@lru_cache(maxsize=1024)
def _prefix(width: int, names: tuple[str, ...]) -> bytes:
    text = json.dumps(names, separators=(",", ":")).encode()
    return _PREFIX.pack(width, len(text)) + text


@lru_cache(maxsize=1024)
def _names(text: bytes) -> tuple[str, ...]:
    return tuple(json.loads(text))


@lru_cache(maxsize=1024)
def _lengths(width: int, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{_WIDTHS[width]}")
