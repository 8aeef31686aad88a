"""An event loop whose time stands still while anything can happen, and jumps when nothing can."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

START_MS = 1_700_000_000_000
_MOST_TURNS = 100_000
"""Turns of the loop without a rest, after which something goes round and round."""
_MOST_JUMPS = 3_000
"""Jumps of its time while somebody waits for something else, after which that will never come."""


class _Looks(selectors.SelectSelector):
    """Where the loop would sleep, it says that it is at rest."""

    loop: StillLoop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0):
            self.loop.rest()
        self.loop.turn()
        return found


class StillLoop(asyncio.SelectorEventLoop):
    """Nothing in it may use a thread: what goes on elsewhere, it would not wait for."""

    def __init__(self) -> None:
        looks = _Looks()
        super().__init__(looks)
        looks.loop = self
        self._now = 0.0
        self._turns = self._jumps = 0
        self._waiting: list[asyncio.Future[None]] = []

    def time(self) -> float:
        return self._now

    def turn(self) -> None:
        self._turns += 1
        if self._turns > _MOST_TURNS:
            raise RuntimeError("something goes on and on though no time passes")

    def rest(self) -> None:
        """Nothing can happen now: tell whoever waits for that, or go to the next moment at which something can."""
        self._turns = 0
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)
        self._jumps = 0 if waiting else self._jumps + 1
        if not waiting:
            if not self._scheduled or self._jumps > _MOST_JUMPS:
                raise RuntimeError("somebody waits for what will never happen")
            self._now = self._scheduled[0].when()

    async def settle(self) -> None:
        """Wait until nothing can happen without time passing."""
        waiter = self.create_future()
        self._waiting.append(waiter)
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let time pass, with a rest at each moment at which something is due."""
        await self.settle()
        end = self._now + seconds
        while due := [each.when() for each in self._scheduled if not each.cancelled() and each.when() <= end]:
            self._now = max(self._now, min(due))
            await self.settle()
        self._now = end
        await self.settle()

    def run_in_executor(self, *_: Any) -> Any:
        raise RuntimeError("a thread was asked for")


class LoopClock:
    """The loop's time as the runtime's clock; chance is always the same."""

    def __init__(self, loop: StillLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return START_MS + round(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    pause = sleep

    def random(self) -> float:
        return 0.5
