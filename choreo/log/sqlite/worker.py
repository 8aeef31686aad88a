"""Threads that own a connection to the log's file, so that nothing of SQLite happens on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from choreo.errors import LogError
from choreo.log.sqlite.database import connect, explain, patiently
from choreo.log.tables import Tables

_logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE = 32
_AFTER_TROUBLE = 1.0


@dataclass
class _Job:
    run: Callable[[Tables], Any]
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: Exception | None = None


class Worker:
    """Implements `Runner`: a thread with its own connection; operations that wait together share a transaction.

    Args:
        path: the log's file.
        synchronous: SQLite's own setting; with "full" a commit is on disk when it returns.
        writes: whether its transactions take the file's write lock.
        tick: an operation of its own, run however busy the event loop is; returns when to run it again, in seconds.
    """

    def __init__(self, path: Path, synchronous: str, *, writes: bool, tick: Callable[[Tables], float]) -> None:
        self._path, self._synchronous, self._writes, self._tick = path, synchronous, writes, tick
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._tables: Tables | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Serve the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name=f"choreo-log-{self._path.name}", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[Concatenate[Tables, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None or self._closed:
            raise LogError(f"log {self._path} is not open", remedy="use it inside: async with open_log(url) as log")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(lambda tables: operation(tables, *args, **kwargs), future))
        return await future

    async def close(self) -> None:
        """Finish what was asked for, then end the thread."""
        if self._thread and not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        due = time.monotonic()
        running = True
        while running and not self._loop.is_closed():
            waiting = self._wait(due)
            running = None not in waiting
            jobs = [job for job in waiting if job]
            self._transact(jobs)
            with contextlib.suppress(RuntimeError):  # the event loop has ended without closing the log
                if jobs:
                    self._loop.call_soon_threadsafe(_answer, jobs)
            if running and time.monotonic() >= due:
                due = self._run_tick()
        self._disconnect()

    def _wait(self, due: float) -> list[_Job | None]:
        """What is there to do: nothing if the tick is due first."""
        waiting: list[_Job | None] = []
        with contextlib.suppress(queue.Empty):
            waiting.append(self._jobs.get(timeout=max(0.0, due - time.monotonic())))
            while len(waiting) < _AT_ONCE:
                waiting.append(self._jobs.get_nowait())
        return waiting

    def _run_tick(self) -> float:
        job = _Job(self._tick)
        self._transact([job])
        if job.error:
            _logger.warning("upkeep of log %s failed: %s", self._path, job.error)
        return time.monotonic() + (job.result or _AFTER_TROUBLE)

    def _transact(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            tables = self._tables = self._tables or self._connect()
            patiently(partial(tables.connection.execute, "BEGIN IMMEDIATE" if self._writes else "BEGIN"))
            for job in jobs:
                try:
                    job.result = job.run(tables)
                except LogError as error:
                    job.error = error
            tables.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - belongs to whoever asked
            self._disconnect()  # what is unfinished ends with its connection, and what was remembered of it too
            for job in jobs:
                if len(jobs) == 1:
                    job.error = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
                else:  # one of them may be to blame: let the others have their way
                    job.error = None
                    self._transact([job])

    def _connect(self) -> Tables:
        connection = connect(self._path, self._synchronous)
        if self._writes:
            connection.execute("PRAGMA busy_timeout = 0")  # `patiently` does the waiting
        return Tables(connection)

    def _disconnect(self) -> None:
        if self._tables:
            self._tables.connection.close()
            self._tables = None


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():  # nobody waits any more
            pass
        elif job.error:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
