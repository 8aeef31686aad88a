"""Threads that own a connection to the log's file, so that nothing of SQLite happens on the event loop."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from choreo.errors import LogError
from choreo.log.sqlite.database import Synchronous, connect, explain, patiently
from choreo.log.tables import Tables

_logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE = 32
_AFTER_TROUBLE = 1.0


class _Job(NamedTuple):
    future: asyncio.Future[Any] | None
    run: Callable[[Tables], Any]


class _Outcome(NamedTuple):
    future: asyncio.Future[Any] | None
    result: Any
    error: BaseException | None = None


class Worker:
    """Implements `Runner`: a thread with its own connection; operations that wait together share a transaction.

    Args:
        path: the log's file.
        synchronous: SQLite's own setting; with "full" a commit is on disk when it returns.
        writes: whether its transactions take the file's write lock.
        tick: an operation of its own, run however busy the event loop is; returns when to run it again, in seconds.
    """

    def __init__(self, path: Path, synchronous: Synchronous, *, writes: bool, tick: Callable[[Tables], float]) -> None:
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
        self._jobs.put(_Job(future, lambda tables: operation(tables, *args, **kwargs)))
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
            if jobs := [job for job in waiting if job]:
                outcomes = self._transact(jobs)
                try:
                    self._loop.call_soon_threadsafe(_resolve, outcomes)
                except RuntimeError:  # the event loop has ended without closing the log
                    running = False
            if running and time.monotonic() >= due:
                due = self._run_tick()
        if self._tables:
            self._tables.connection.close()

    def _wait(self, due: float) -> list[_Job | None]:
        """What is there to do: nothing if the tick is due first."""
        waiting: list[_Job | None] = []
        try:
            waiting.append(self._jobs.get(timeout=max(0.0, due - time.monotonic())))
            while len(waiting) < _AT_ONCE:
                waiting.append(self._jobs.get_nowait())
        except queue.Empty:
            pass
        return waiting

    def _run_tick(self) -> float:
        (outcome,) = self._transact([_Job(None, self._tick)])
        if outcome.error:
            _logger.warning("upkeep of log %s failed: %s", self._path, outcome.error)
        return time.monotonic() + (outcome.result or _AFTER_TROUBLE)

    def _transact(self, jobs: list[_Job]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        try:
            tables = self._tables = self._tables or self._open()
            patiently(partial(tables.connection.execute, "BEGIN IMMEDIATE" if self._writes else "BEGIN"))
            for job in jobs:
                try:
                    outcomes.append(_Outcome(job.future, job.run(tables)))
                except LogError as error:
                    outcomes.append(_Outcome(job.future, None, error))
            tables.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - belongs to whoever asked
            self._roll_back()
            if len(jobs) > 1:  # one of them may be to blame: let the others have their way
                return [outcome for job in jobs for outcome in self._transact([job])]
            known = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
            return [_Outcome(job.future, None, known) for job in jobs]
        return outcomes

    def _open(self) -> Tables:
        connection = connect(self._path, self._synchronous)
        if self._writes:
            connection.execute("PRAGMA busy_timeout = 0")  # `patiently` does the waiting
        return Tables(connection)

    def _roll_back(self) -> None:
        """Begin afresh: what is unfinished ends with its connection, and what was remembered of it too."""
        if self._tables:
            self._tables.connection.close()
            self._tables = None


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future is None or future.done():  # nobody waits any more
            pass
        elif error:
            future.set_exception(error)
        else:
            future.set_result(result)
