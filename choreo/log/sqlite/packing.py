"""Record headers as one column.

Layout: four bytes with the size of the prefix, the prefix (names and lengths of the values, as JSON), the values one after
the other. Records of one kind mostly have the same prefix, so it is read and written once for all of them.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache

from choreo.log.port import Headers

_SIZE = struct.Struct("<I")


def pack(headers: Headers) -> bytes | None:
    """Headers as bytes; None if there are none."""
    if not headers:
        return None
    names, values = zip(*headers, strict=True)
    return b"".join((_prefix(names, tuple(map(len, values))), *values))


def unpack(packed: bytes | None) -> Headers:
    """What `pack` has packed."""
    if packed is None:
        return []
    begin = _SIZE.size + _SIZE.unpack_from(packed)[0]
    names, values = _layout(packed[_SIZE.size : begin])
    return list(zip(names, values.unpack_from(packed, begin), strict=True))


@lru_cache(maxsize=4096)
def _prefix(names: tuple[str, ...], lengths: tuple[int, ...]) -> bytes:
    text = json.dumps([names, lengths], separators=(",", ":")).encode()
    return _SIZE.pack(len(text)) + text


@lru_cache(maxsize=4096)
def _layout(prefix: bytes) -> tuple[list[str], struct.Struct]:
    names, lengths = json.loads(prefix)
    return names, struct.Struct("".join(f"{length}s" for length in lengths))
