"""The SQLite store: short statements run on the event loop's thread, waits (locks, commits) on the store's own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote
from uuid import uuid4

from choreo.errors import ConfigurationError, FencedError, StoreUnavailableError
from choreo.log.port import TopicPartition
from choreo.store.deaths import Owned, taken_over
from choreo.store.leftovers import left_for
from choreo.store.port import Effects, Takeover
from choreo.store.sql import load_queries
from choreo.store.sqlite import opening, writing
from choreo.store.sqlite.database import SqliteDatabase, begin_patiently, is_busy, passing
from choreo.store.sqlite.reading import Reading
from choreo.store.waiting import to_its_end

_Q = load_queries("choreo.store.sqlite")
_SMALL, _SWIFT = 32, 0.004
"""Up to so many rows, a transaction is committed on the event loop's thread while commits take less than so many seconds."""
OF_CONNECTION = ("unit", "write_unit", "write_notes", "write_timers")
"""The queries that make what belongs to one connection only."""
_CLOSED = sqlite3.connect(":memory:")
_CLOSED.close()
"""What a closed store has in the place of its connections. Whoever still asks gets an error: if the loop's thread used
a connection while the store's thread frees it, the process would end."""
_OLDEST = (3, 36)
"""3.35 has RETURNING too, but ends the process when a row is inserted into a view with it."""

T = TypeVar("T")


class SqliteStore(Reading):
    """Implements `Store` in one SQLite file (WAL; a commit is on disk when it returns).

    Args:
        path: the file; its folder is made.
        synchronous: SQLite's own setting; `normal` may lose the last commits of a power cut, never of a crash,
            and is then behind the log, which is read again.
    """

    def __init__(self, path: Path, *, synchronous: str = "full") -> None:
        self._path = path
        self._synchronous = synchronous
        self._instance = uuid4().hex
        self._publishing = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="choreo-store")
        self._connections: list[sqlite3.Connection] = []
        self._now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self._writer: sqlite3.Connection
        self._is_open = False
        self._is_swift = False

    @classmethod
    def at(cls, url: str) -> SqliteStore:
        """The store at `sqlite:///path[?synchronous=normal]`.

        Raises:
            ConfigurationError: no path, or an option that does not exist.
        """
        path, _, query = url.removeprefix("sqlite://").partition("?")
        options = {name: values[-1] for name, values in parse_qs(query).items()}
        synchronous = options.pop("synchronous", "full")
        if not path.startswith("/") or path == "/" or options or synchronous not in {"full", "normal"}:
            raise ConfigurationError(
                f"the store address {url!r} is not valid",
                remedy="write sqlite:///relative.db or sqlite:////absolute.db, optionally with ?synchronous=normal",
            )
        return cls(Path(unquote(path[1:])), synchronous=synchronous)

    # --- opening --------------------------------------------------------------------------------------------------

    async def open(self, service: str, tables: str = "") -> None:
        try:
            await self._run(lambda: self._open(service, tables))
        except BaseException as error:
            await self._run(self._close)
            self._thread.shutdown(wait=False)
            if isinstance(error, sqlite3.Error):
                raise ConfigurationError(f"the tables of service {service!r} cannot be made", why=str(error)) from error
            raise
        self.db = SqliteDatabase(self._writer, self._path)
        self._is_open = True

    def _open(self, service: str, tables: str) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            why, remedy = (
                f"this Python has SQLite {sqlite3.sqlite_version}",
                "use a Python with a newer SQLite, or PostgreSQL",
            )
            raise ConfigurationError("the SQLite store needs SQLite 3.36 or newer", why=why, remedy=remedy)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            self._connections.append(
                sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
            )
            opening.prepare(self._connections[-1], self._path, self._synchronous)
        self._writer, self._reader = self._connections
        self._writer.execute("PRAGMA busy_timeout = 0")
        begin_patiently(self._writer)
        opening.migrate(self._writer, self._path, service, tables)
        self._writer.execute("COMMIT")
        for made in OF_CONNECTION:
            self._writer.execute(_Q[made])

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._writer = self._reader = _CLOSED
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()  # rolls back what is open

    # --- short transactions of their own --------------------------------------------------------------------------

    async def take_over(self, partitions: Sequence[TopicPartition]) -> Takeover:
        return await self._alone(lambda: self._take_over(partitions))

    def _take_over(self, partitions: Sequence[TopicPartition]) -> Takeover:
        writer = self._writer
        progress = {}
        parked: set[bytes] = set()
        for at in partitions:
            writer.execute(_Q["make_progress"], at)
            taken = taken_over(Owned(*writer.execute(_Q["progress"], at).fetchone()), self._instance)
            suspects = json.dumps(dict(taken.suspects))
            writer.execute(_Q["take_over"], (taken.epoch, self._instance, taken.deaths, suspects, *at))
            progress[at] = taken
            parked.update(lane for (lane,) in writer.execute(_Q["parked"], at))
        rows = [
            (row_id, {TopicPartition(*pair) for pair in json.loads(read_from)}, packed)
            for row_id, read_from, packed in writer.execute(_Q["outbox"])
            if row_id not in self._publishing
        ]
        return Takeover(progress, left_for(partitions, rows), parked)

    async def give_back(self, epochs: Mapping[TopicPartition, int]) -> None:
        rows = [(*at, epoch) for at, epoch in epochs.items()]
        await self._alone(lambda: self._writer.executemany(_Q["give_back"], rows))

    async def suspect(self, partition: TopicPartition, offset: int) -> None:
        await self._alone(lambda: self._writer.execute(_Q["suspect"], (offset, *partition, self._instance)))

    async def expire(self, before_ms: int, after: bytes, limit: int) -> bytes:
        return await self._expire("inbox", before_ms, after, limit)

    async def expire_notes(self, before_ms: int, after: bytes, limit: int) -> bytes:
        return await self._expire("notes", before_ms, after, limit)

    async def _expire(self, what: str, before_ms: int, after: bytes, limit: int) -> bytes:
        """Takes the write lock only if there is something to remove."""
        walked = self._walk(f"walk_{what}", after, limit)
        if old := [(key, before_ms) for key, kept in walked if kept < before_ms]:
            await self._alone(lambda: self._writer.executemany(_Q[f"expire_{what}"], old))
        return bytes(walked[-1][0]) if len(walked) == limit else b""

    async def release(self, lane: bytes, head: str, at: TopicPartition, epoch: int) -> bool:
        def release() -> bool:
            if not writing.is_owner(self._writer, at, epoch):
                raise FencedError([at])
            return self._writer.execute(_Q["release"], (lane, head)).rowcount > 0

        return await self._alone(release)

    # --- the transaction ------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        return self._is_open and self._writer.in_transaction

    async def begin(self) -> None:
        try:
            self._execute("BEGIN IMMEDIATE")
        except StoreUnavailableError:  # as a rule another process writes
            try:
                await self._run(lambda: begin_patiently(self._writer))
            except BaseException:
                await self.rollback()  # whoever asked was cancelled: others must not find the lock taken
                raise

    async def savepoint(self) -> None:
        self._execute("SAVEPOINT choreo_handler")

    async def release_savepoint(self) -> None:
        self._execute("RELEASE choreo_handler")

    async def rollback_to_savepoint(self) -> None:
        self._execute("ROLLBACK TO choreo_handler")
        self._execute("RELEASE choreo_handler")

    def _execute(self, sql: str) -> None:
        with passing(self._path):
            self._writer.execute(sql)

    async def commit(self, effects: Effects) -> int | None:
        def write() -> int | None:
            return writing.write(self._writer, self._instance, effects, self._now_ms())

        small = writing.size(effects) <= _SMALL
        alone = not self._writer.in_transaction and not writing.is_rare(effects)
        if not alone and not self._writer.in_transaction:
            await self.begin()
        try:
            row_id = await self._finish(write, at_once=small)
        except StoreUnavailableError as error:
            if not alone or not is_busy(error.__cause__):
                raise
            await self.begin()  # another process writes; this waits for it
            row_id = await self._finish(write, at_once=small)
        self._publishing.difference_update(effects.ticked)
        if row_id is not None:
            self._publishing.add(row_id)
        return row_id

    async def _alone(self, work: Callable[[], T]) -> T:
        """A short transaction of its own."""
        await self.begin()
        return await self._finish(work)

    async def _finish(self, work: Callable[[], T], *, at_once: bool = False) -> T:
        """Do the last writes of the transaction and commit it, or undo it all.

        `at_once`: on the event loop's thread if the last commit was swift; the way to another thread and back takes longer.
        """

        def commit() -> T:
            begun = time.monotonic()
            result = work()
            if self._writer.in_transaction:  # else the work was one statement, and a transaction by itself
                self._writer.execute("COMMIT")
            self._is_swift = time.monotonic() - begun < _SWIFT
            return result

        try:
            if at_once and self._is_swift:
                with passing(self._path):
                    return commit()
            return await self._run(commit)
        except BaseException:
            await self.rollback()
            raise

    async def rollback(self) -> None:
        if self.in_transaction:
            self._writer.execute("ROLLBACK")

    async def _run(self, work: Callable[[], T]) -> T:
        """Do blocking work on the store's own thread; its errors become choreo's."""

        def guarded() -> T:
            with passing(self._path):
                return work()

        return await to_its_end(asyncio.get_running_loop().run_in_executor(self._thread, guarded))
