"""A clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from typing import TypeAlias

_Waiting: TypeAlias = "list[tuple[int, int, asyncio.Future[None]]]"


class VirtualClock:
    """Implements `Clock`; times are microseconds since the epoch.

    Args:
        start_ms: the first moment, milliseconds since the epoch.
        chance: where `random` comes from.
    """

    def __init__(self, start_ms: int, chance: random.Random) -> None:
        self.now = start_ms * 1000
        self._chance = chance
        self._sleepers: _Waiting = []
        self._pausing: _Waiting = []
        self._count = 0

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return self.now // 1000

    def monotonic(self) -> float:
        """See `Clock.monotonic`: what happens takes no time."""
        return self.now / 1e6

    def random(self) -> float:
        """See `Clock.random`."""
        return self._chance.random()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await self._wait(self._sleepers, seconds)

    async def pause(self, seconds: float) -> None:
        """See `Clock.pause`."""
        await self._wait(self._pausing, seconds)

    async def _wait(self, waiting: _Waiting, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(waiting, (self.now + math.ceil(seconds * 1e6), self._count, waiter))
        await waiter

    def next_due(self, *, pauses: bool) -> int | None:
        """The first moment at which somebody wakes; None if nobody waits.

        Args:
            pauses: whether also those count that only look around.
        """
        for waiting in (self._sleepers, self._pausing):
            while waiting and waiting[0][2].done():  # cancelled meanwhile
                heapq.heappop(waiting)
        first = [waiting[0][0] for waiting in (self._sleepers, self._pausing)[: 1 + pauses] if waiting]
        return min(first, default=None)

    def move_to(self, moment: int) -> None:
        """Let it be this moment, and wake whoever was due."""
        self.now = max(self.now, moment)
        for waiting in (self._sleepers, self._pausing):
            while waiting and waiting[0][0] <= self.now:
                waiter = heapq.heappop(waiting)[2]
                if not waiter.done():
                    waiter.set_result(None)
