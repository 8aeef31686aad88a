"""Durations as people write them: `250ms`, `2s`, `15m`, `6h`, `3d`, or plain seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from choreo.errors import DeclarationError

Duration: TypeAlias = "str | float | timedelta"
"""Seconds as a number, a `timedelta`, or text such as `250ms`, `2s`, `15m`, `6h`, `3d`."""

_TEXT = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: Duration) -> float:
    """A duration in seconds.

    Raises:
        DeclarationError: not a duration, or negative.
    """
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        match = _TEXT.match(duration.strip())
        if match is None:
            raise DeclarationError(
                f"{duration!r} is no duration", remedy="write 250ms, 2s, 15m, 6h or 3d, or plain seconds"
            )
        value = float(match[1]) * _UNITS[match[2]]
    else:
        value = float(duration)
    if not 0 <= value < float("inf"):
        raise DeclarationError(f"{duration!r} is no duration", why="it must be zero or more, and finite")
    return value


def text(duration: float) -> str:
    """So many seconds as people write them: in the largest unit that needs no fraction."""
    for unit, size in reversed(_UNITS.items()):
        count = round(duration / size, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{duration:g}s"
