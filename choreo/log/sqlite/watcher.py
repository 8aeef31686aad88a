"""A thread that notices what other processes commit to the log's file."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from choreo.log.sqlite.membership import generations
from choreo.log.sqlite.worker import connect

_logger = logging.getLogger(__name__)

_INTERVAL, _IDLE_INTERVAL, _AFTER_TROUBLE = 0.01, 0.05, 1.0


class Watcher:
    """Looks every 10 ms whether the file has changed; SQLite answers that from shared memory, for next to nothing.

    Args:
        path: the log's file.
        changed: called on the event loop after a commit by anybody, and told whether a consumer group has changed.
        wanted: whether anybody waits for changes.
        tick: called on this thread, however busy the event loop is; returns when to call it again, in seconds.
    """

    def __init__(
        self, path: Path, changed: Callable[..., None], tick: Callable[[], float], wanted: Callable[[], bool]
    ) -> None:
        self._path = path
        self._changed = changed
        self._wanted = wanted
        self._tick = tick
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"choreo-watch-{path.name}", daemon=True)

    def start(self) -> None:
        """Watch for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with closing(connect(self._path, "normal")) as connection:
                    self._watch(connection)
            except RuntimeError:  # the event loop has ended without closing the log
                return
            except Exception as error:  # noqa: BLE001 - nobody waits for this thread; it goes on when the trouble is over
                _logger.warning("log %s cannot be watched: %s", self._path, error)
                self._ended.wait(_AFTER_TROUBLE)

    def _watch(self, connection: sqlite3.Connection) -> None:
        version, known = None, generations(connection)
        due = time.monotonic()
        while not self._ended.wait(_INTERVAL if self._wanted() else _IDLE_INTERVAL):
            if time.monotonic() >= due:
                due = time.monotonic() + self._tick()
            before, version = version, connection.execute("PRAGMA data_version").fetchone()
            if version != before:
                earlier, known = known, generations(connection)
                self._loop.call_soon_threadsafe(partial(self._changed, regrouped=known != earlier))
