"""Ascending offsets as text ranges: `7-9,12`. Holes are few, so this stays short where a list would not."""

from __future__ import annotations

from collections.abc import Iterable


def pack(offsets: Iterable[int]) -> str:
    """Ascending offsets as ranges."""
    ranges: list[list[int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] == offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def unpack(text: str) -> tuple[int, ...]:
    """The offsets that `pack` wrote."""
    offsets: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        offsets.extend(range(int(first), int(last or first) + 1))
    return tuple(offsets)
