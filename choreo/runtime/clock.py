"""The runtime's only access to time and chance, so that tests can replace both."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Time and chance."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, for telling how long something takes."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait before looking around again. A clock that jumps does not stop for it: nothing is due then."""
        ...

    def random(self) -> float:
        """Evenly from 0 up to 1."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(seconds)

    async def pause(self, seconds: float) -> None:
        """See `Clock.pause`."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """See `Clock.random`."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing


@lru_cache(maxsize=16)
def rfc3339(now_ms: int) -> str:
    """A time as it stands in `ce_time`: UTC with milliseconds."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
