"""Ending calls that take too long. A call that does not costs nothing: nobody reads a clock for it."""

from __future__ import annotations

import asyncio

import structlog

from choreo.errors import ChoreoError
from choreo.runtime.clock import Clock
from choreo.runtime.partitions import identity
from choreo.runtime.session import Session

_log = structlog.get_logger("choreo.runtime")
HOLD_LIMIT = 15.0
"""Seconds that one handler run may hold the store's connection."""


class Watchdog:
    """Looks around at regular intervals, and counts at how many it has seen each call.

    Args:
        shortest: the least timeout of the service's handlers, in seconds.

    Attributes:
        calls: the call that is under way, by worker.
    """

    def __init__(self, clock: Clock, shortest: float) -> None:
        self._clock = clock
        self._interval = min(1.0, max(0.02, shortest / 4))
        self._seen: dict[Session, tuple[int, int]] = {}
        self.calls: dict[asyncio.Task[object], Session] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.pause(self._interval)
            self.look()

    def look(self) -> None:
        """Look around once."""
        seen = {}
        for call in self.calls.values():
            if not call.closed:
                times, held = self._seen.get(call, (0, 0))
                seen[call] = times + 1, held + call.entered
                self._judge(call, times * self._interval, held * self._interval)
        self._seen = seen

    def _judge(self, call: Session, lasted: float, held: float) -> None:
        """End a call that has lasted too long; one that does not heed it again after as much time."""
        timeout = call.handler.timeout
        if lasted > timeout * (1 + call.ended):
            if call.ended:
                _log.error(
                    "handler does not heed its cancellation", **identity(call.job, call.handler), seconds=round(lasted)
                )
            call.end(TimeoutError(f"handler {call.handler} was ended after its timeout of {timeout:g} s"))
        elif held > HOLD_LIMIT and not call.ended:
            why, remedy = "nothing of this instance can be committed meanwhile", "make slow calls before using ctx.db"
            what = f"the handler held ctx.db for more than {HOLD_LIMIT:g} s"
            call.end(ChoreoError(what, why=why, remedy=remedy))
