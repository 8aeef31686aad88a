"""A clock that tests turn: nothing waits, and nothing comes by itself."""

from __future__ import annotations

import asyncio
import heapq
import time


class TurnedClock:
    """Time stands still until `turn`; `random` is always `chance`."""

    def __init__(self, now_ms: int = 1_700_000_000_000, chance: float = 0.5) -> None:
        self._now = now_ms / 1000
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.chance = chance

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return round(self._now * 1000)

    monotonic = staticmethod(time.monotonic)

    def random(self) -> float:
        """See `Clock.random`."""
        return self.chance

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, id(waiter), waiter))
        await waiter

    pause = sleep

    def turn(self, seconds: float) -> None:
        """Let this much time pass."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)
