"""The log in a SQLite file: durable, and shared by several processes of one machine without any server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from choreo.errors import ConfigurationError, LogError
from choreo.log.embedded.log import EmbeddedLog
from choreo.log.file import connect, explain, patiently
from choreo.log.tables import Tables

_logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_URL = re.compile(r"sqlite:///(?!:memory:)([^?]+)(?:\?synchronous=(full|normal))?")
_WATCH_INTERVAL = 0.01
_HEARTBEAT_INTERVAL = 1.0
_TRIM_INTERVAL = 0.02  # between two bites, so that appends get their turn
_AFTER_TROUBLE = 1.0
_LONGEST_STALL = 300.0  # a member whose event loop has not run for so long (seconds) counts as dead, as in Kafka
_AT_ONCE = 32


class SqliteLog(EmbeddedLog):
    """The log in one file. One thread writes and shows that members live, one reads and watches for what others write.

    Args:
        path: the file, made with its folder when it is not there.
        synchronous: "full" (a record is on disk when it is acknowledged) or "normal" (the last ones may be lost when
            the machine, not just the process, goes down).
        make: whether to make it, or to refuse.
        url: what to show as its address.
    """

    check_interval = _HEARTBEAT_INTERVAL

    def __init__(self, path: Path, *, synchronous: str = "full", make: bool = True, url: str = "") -> None:
        self.url = url or f"sqlite:///{path}"
        path = path.absolute()  # whatever becomes of the working directory
        self._path, self._must_exist = path, not make
        self._writer = _Worker(path, synchronous, writes=True, tick=self._keep_up)
        self._reader = _Worker(path, synchronous, writes=False, tick=self._watch)
        self._seen: tuple[object, dict[str, int]] = (None, {})  # the file's version, and the groups' generations in it
        super().__init__(self._reader, self._writer)

    @classmethod
    def at(cls, url: str, *, make: bool = True) -> Self:
        """The log at `sqlite:///relative/path` or `sqlite:////absolute/path`, optionally with `?synchronous=normal`.

        Raises:
            ConfigurationError: the address names no file, or an option there is not.
        """
        match = _URL.fullmatch(url)
        if not match:
            raise ConfigurationError(
                f"CHOREO_LOG is {url!r}, which names no file that can be used",
                remedy="write sqlite:///path/log.db, optionally with ?synchronous=normal",
            )
        return cls(Path(match[1]), synchronous=match[2] or "full", make=make, url=url)

    async def __aenter__(self) -> Self:
        if self._must_exist and not self._path.exists():
            raise ConfigurationError(
                f"there is no log {self.url}",
                remedy="name another with --log or CHOREO_LOG; services and publishers make it",
            )
        self._loop = asyncio.get_running_loop()
        try:
            self._writer.start()
            await self._writer.run(lambda _: None)  # makes the file, or says why it cannot
            self._reader.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close_consumers()
        await self._reader.close()
        await self._writer.close()

    def _keep_up(self, tables: Tables) -> float:
        oldest = time.monotonic() - _LONGEST_STALL
        consumers = self.consumers.copy()
        tables.heartbeat(consumer.membership for consumer in consumers if consumer.looked > oldest)
        return _TRIM_INTERVAL if tables.trim() else _HEARTBEAT_INTERVAL

    def _watch(self, tables: Tables) -> float:
        """See whether anybody has written; SQLite answers that from shared memory, for next to nothing."""
        version = tables.connection.execute("PRAGMA data_version").fetchone()
        before = self._seen
        if version != before[0]:
            self._seen = (version, tables.generations())
            self._loop.call_soon_threadsafe(partial(self.wake, regrouped=self._seen[1] != before[1]))
        return _WATCH_INTERVAL


@dataclass
class _Job:
    run: Callable[[Tables], Any]
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: Exception | None = None


class _Worker:
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
        begun = False
        try:
            tables = self._tables = self._tables or self._connect()
            patiently(partial(tables.connection.execute, "BEGIN IMMEDIATE" if self._writes else "BEGIN"))
            begun = True
            for job in jobs:
                try:
                    job.result = job.run(tables)
                except LogError as error:
                    job.error = error
            tables.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - belongs to whoever asked
            self._roll_back()
            for job in jobs:
                job.error = None
                if begun and len(jobs) > 1:  # one of them may be to blame: let the others have their way
                    self._transact([job])
                else:
                    job.error = explain(error, self._path) if isinstance(error, sqlite3.Error) else error

    def _connect(self) -> Tables:
        connection = connect(self._path, self._synchronous)
        if self._writes:
            connection.execute("PRAGMA busy_timeout = 0")  # `patiently` does the waiting
        return Tables(connection)

    def _roll_back(self) -> None:
        """Undo what is unfinished, and forget what was remembered of it."""
        try:
            if self._tables:
                self._tables.connection.rollback()
                self._tables = Tables(self._tables.connection)
        except sqlite3.Error:  # begin afresh: a transaction ends with its connection
            self._disconnect()

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
