"""Several processes of the same work: started, started again when they die, and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence

import structlog

_log = structlog.get_logger("choreo.runtime")
_FIRST_DELAY, _MAX_DELAY = 0.5, 30.0
_CALM = 60.0
"""Seconds that a process has to live for the delay to start small again."""


class Supervisor:
    """Keeps `count` processes running until told to stop.

    Each has a session of its own, so that a terminal's Ctrl-C reaches it once, from here; and an input that ends when
    this process does, by which it knows that it is alone.

    Args:
        command: of the process with this number, 0 to `count` - 1, and its environment.
        patience: seconds a process gets to end after SIGTERM before it is killed.
        hopeless: the exit code of a process that would end the same way again: the others are stopped too.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int], tuple[Sequence[str], Mapping[str, str]]],
        *,
        patience: float,
        hopeless: int,
    ) -> None:
        self._count, self._command, self._patience, self._hopeless = count, command, patience, hopeless

    async def run(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set; the highest exit code of the processes then, 1 for one that had to be killed."""
        return max(await asyncio.gather(*(self._keep(number, stop) for number in range(self._count))))

    async def _keep(self, number: int, stop: asyncio.Event) -> int:
        delay, loop = _FIRST_DELAY, asyncio.get_running_loop()
        while not stop.is_set():
            command, environment = self._command(number)
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdin=asyncio.subprocess.PIPE, start_new_session=True
            )
            begun, waiting = loop.time(), {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(process.wait())}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return await self._end(process)
            finally:
                for each in waiting:
                    each.cancel()
            if process.returncode == self._hopeless:
                stop.set()
                return self._hopeless
            delay = _FIRST_DELAY if loop.time() - begun > _CALM else delay
            _log.error("process ended, starting it again", process=number, code=process.returncode, delay=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(_MAX_DELAY, delay * 2)
        return 0

    async def _end(self, process: asyncio.subprocess.Process) -> int:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), self._patience)
            return 0 if code == -signal.SIGTERM else abs(code)  # so ends one that has not begun to listen
        except TimeoutError:
            process.kill()
            await process.wait()
            return 1
