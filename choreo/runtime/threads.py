"""The threads of `def` handlers. One that hangs is given up, and another takes its place."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

import structlog

_log = structlog.get_logger("choreo.runtime")


class Threads:
    """Runs blocking calls in threads, at most `most` of them that are not given up.

    They are daemons, unlike an executor's: one that hangs does not keep the process from ending.

    Attributes:
        hanging: how many are given up and go on all the same.
    """

    def __init__(self, service: str, most: int) -> None:
        self._service = service
        self._most = most
        self._calls: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()
        self._threads = self._busy = self.hanging = 0

    async def run(self, call: Callable[[], Any], what: str) -> Any:
        """What `call` returns. If this is cancelled, the thread goes on by itself and its result is ignored."""
        future: Future[Any] = Future()
        context, undecided = (
            contextvars.copy_context(),
            [True],
        )  # who takes it out first says what becomes of the thread

        def work() -> bool:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(context.run(call))
                except BaseException as error:  # noqa: BLE001 - whoever awaits it decides
                    future.set_exception(error)
            return _taken(undecided)

        self._busy += 1
        if self._busy > self._threads and self._threads < self._most:
            self._threads += 1
            Thread(target=self._serve, name=f"choreo-{self._service}", daemon=True).start()
        self._calls.put(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running() and _taken(undecided):
                self._give_up(future, what)
            raise
        finally:
            self._busy -= 1

    def _serve(self) -> None:
        while (work := self._calls.get()) is not None:
            if not work():
                return

    def _give_up(self, future: Future[Any], what: str) -> None:
        loop = asyncio.get_running_loop()
        self._threads -= 1
        self.hanging += 1
        _log.warning(
            "the thread of a handler is given up and goes on by itself: what it does counts no more",
            service=self._service, handler=what, threads_given_up=self.hanging,
        )  # fmt: skip

        def ended() -> None:
            self.hanging -= 1

        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(ended))

    def close(self) -> None:
        """Start no more."""
        for _ in range(self._threads):
            self._calls.put(None)


def _taken(only: list[bool]) -> bool:
    try:
        return only.pop()
    except IndexError:
        return False
