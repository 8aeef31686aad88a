"""The threads of `def` handlers. One that hangs is given up, and another takes its place."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog

_log = structlog.get_logger("choreo.runtime")


class Threads:
    """Runs blocking calls in threads, at most `most` of them that are not given up."""

    def __init__(self, service: str, most: int) -> None:
        self._service = service
        self._most = most
        self._hanging = 0
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._most, thread_name_prefix=f"choreo-{self._service}")

    async def run(self, call: Callable[[], Any], what: object) -> Any:
        """What `call` returns. If this is cancelled, the thread goes on by itself and its result is ignored."""
        future = self._pool.submit(contextvars.copy_context().run, call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if future.running():
                self._give_up(future, what)
            raise

    def _give_up(self, future: Future[Any], what: object) -> None:
        loop = asyncio.get_running_loop()
        self._hanging += 1
        _log.warning(
            "the thread of a handler is given up and goes on by itself: what it does counts no more",
            handler=str(what), threads_given_up=self._hanging,
        )  # fmt: skip

        def ended(_: Future[Any]) -> None:
            self._hanging -= 1

        future.add_done_callback(lambda done: loop.is_closed() or loop.call_soon_threadsafe(ended, done))
        pool, self._pool = self._pool, self._new_pool()
        pool.shutdown(wait=False)  # its other calls, those that wait too, still run there

    def close(self) -> None:
        """Start no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
