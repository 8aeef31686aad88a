"""The SQLite store: short statements run on the event loop's thread, waits (locks, commits) on the store's own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote
from uuid import uuid4

from choreo.errors import ConfigurationError, FencedError, StoreOwnedError, StoreUnavailableError
from choreo.log.port import TopicPartition
from choreo.store import outbox, ranges
from choreo.store.port import Effects, OutboxRow, Progress
from choreo.store.sql import load_migrations, load_queries
from choreo.store.sqlite.database import SqliteDatabase, passing

_PACKAGE = "choreo.store.sqlite"
_Q = load_queries(_PACKAGE)
_LOCK_WAIT = 30.0
"""Seconds to wait for another process's transaction."""
_LOG_APPLICATION_ID = 0x63686C67
"""Marks the file of an embedded log, which shares its write lock with nobody."""
_MOST_KEYS = 4_096
"""Inbox keys asked for in one statement; SQLite's limit of parameters is 32,766."""

T = TypeVar("T")


class SqliteStore:
    """Progress, inbox, outbox and the user's tables in one SQLite file (WAL; a commit is on disk when it returns).

    Args:
        path: the file; its folder is made.
        synchronous: SQLite's own setting; `normal` may lose the last commits of a power cut, never of a crash,
            and is then behind the log, which is read again.
    """

    def __init__(self, path: Path, *, synchronous: str = "full") -> None:
        self._path = path
        self._synchronous = synchronous
        self._instance = uuid4().hex
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="choreo-store")
        self._connections: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._is_open = False

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
        """See `Store.open`."""
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
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = self._connect()
        self._reader = self._connect()
        self._writer.execute("PRAGMA busy_timeout = 0")
        self._migrate(service, tables)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connections.append(connection)
        self._use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:  # SQLite does not wait here when two processes make the file
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise ConfigurationError(
                f"the store {self._path} cannot be shared",
                why="its file system allows no write-ahead log",
                remedy="put it on a local disk",
            )

    def _migrate(self, service: str, tables: str) -> None:
        writer = self._writer
        if writer.execute("PRAGMA application_id").fetchone()[0] == _LOG_APPLICATION_ID:
            raise ConfigurationError(
                f"the store {self._path} is the file of a log", remedy="give the store a file of its own: CHOREO_STORE"
            )
        self._begin_patiently()
        writer.execute(_Q["make_migrations"])
        version = writer.execute(_Q["version"]).fetchone()[0]
        migrations = load_migrations(_PACKAGE)
        if version > migrations[-1].number:
            raise ConfigurationError(f"the store {self._path} was written by a newer choreo", remedy="upgrade this one")
        for migration in migrations[version:]:
            for statement in _statements(migration.sql):
                writer.execute(statement)
            writer.execute(_Q["migrated"], (migration.number,))
        owner = writer.execute(_Q["service"]).fetchone()
        if owner is not None and owner[0] != service:
            raise StoreOwnedError(
                f"the store {self._path} belongs to service {owner[0]!r}, so service {service!r} cannot use it",
                remedy=f"give {service!r} its own: Service({service!r}, store=...) or CHOREO_STORE with {{service}} in it",
            )
        if owner is None:
            writer.execute(_Q["claim"], (service,))
        for statement in _statements(tables):
            writer.execute(statement)
        writer.execute("COMMIT")

    async def close(self) -> None:
        """See `Store.close`."""
        if self._is_open:
            self._is_open = False
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()  # rolls back what is open

    # --- reading --------------------------------------------------------------------------------------------------

    async def take_over(
        self, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, Progress], list[OutboxRow]]:
        """See `Store.take_over`."""
        await self.begin()
        try:
            return await self._run(lambda: self._take_over(partitions))
        except BaseException:
            await self.rollback()
            raise

    def _take_over(
        self, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, Progress], list[OutboxRow]]:
        progress = {}
        for partition in partitions:
            watermark, done, epoch = self._writer.execute(_Q["take_over"], partition).fetchone()
            progress[partition] = Progress(watermark, ranges.unpack(done), epoch)
        mine = set(partitions)
        left = [
            OutboxRow(row_id, outbox.unpack(records))
            for row_id, read_from, records in self._writer.execute(_Q["others_outbox"], (self._instance,))
            if any(TopicPartition(*pair) in mine for pair in json.loads(read_from))
        ]
        self._writer.execute("COMMIT")
        return progress, left

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:
        """See `Store.seen`. Reads beside the transaction, so it never waits for a writer."""
        found: set[bytes] = set()
        for first in range(0, len(keys), _MOST_KEYS):
            some = keys[first : first + _MOST_KEYS]
            # Padded to a power of two, so that SQLite's statement cache sees a handful of texts.
            padded = [*some, *[some[-1]] * ((1 << (len(some) - 1).bit_length()) - len(some))]
            marks = ",".join("?" * len(padded))
            with passing(self._path):
                rows = self._reader.execute(f"SELECT key FROM choreo_inbox WHERE key IN ({marks})", padded)
                found.update(row[0] for row in rows)
        return found

    # --- the transaction ------------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """See `Store.in_transaction`."""
        return self._writer.in_transaction

    async def begin(self) -> None:
        """See `Store.begin`."""
        try:
            with passing(self._path):
                self._writer.execute("BEGIN IMMEDIATE")
        except StoreUnavailableError as error:
            cause = error.__cause__
            if not isinstance(cause, sqlite3.Error) or cause.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            try:
                await self._run(self._begin_patiently)
            except BaseException:
                await self.rollback()  # whoever asked was cancelled: others must not find the lock taken
                raise

    def _begin_patiently(self) -> None:
        """Wait for another process's transaction, off the event loop.

        SQLite's own waiting sleeps up to 100 ms at a time, in which a busy instance comes first over and over.
        """
        begun = time.monotonic()
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > begun + _LOCK_WAIT:
                    raise
            time.sleep(0.001)

    async def savepoint(self) -> None:
        """See `Store.savepoint`."""
        self._execute("SAVEPOINT choreo_handler")

    async def release_savepoint(self) -> None:
        """See `Store.release_savepoint`."""
        self._execute("RELEASE choreo_handler")

    async def rollback_to_savepoint(self) -> None:
        """See `Store.rollback_to_savepoint`."""
        self._execute("ROLLBACK TO choreo_handler")
        self._execute("RELEASE choreo_handler")

    def _execute(self, sql: str) -> None:
        with passing(self._path):
            self._writer.execute(sql)

    async def commit(self, effects: Effects) -> int | None:
        """See `Store.commit`."""
        if not self._writer.in_transaction:
            await self.begin()
        try:
            return await self._run(lambda: self._commit(effects))
        except BaseException:
            await self.rollback()
            raise

    def _commit(self, effects: Effects) -> int | None:
        writer = self._writer
        fenced = [
            partition
            for partition, (watermark, done, epoch) in effects.progress.items()
            if not writer.execute(_Q["advance"], (watermark, ranges.pack(done), *partition, epoch)).rowcount
        ]
        if fenced:
            raise FencedError(fenced)
        if effects.inbox:
            now = int(time.time() * 1000)
            writer.executemany(_Q["remember"], [(key, now) for key in effects.inbox])
        if effects.ticked:
            writer.executemany(_Q["tick_outbox"], [(row_id,) for row_id in effects.ticked])
        row_id = None
        if effects.outbox:
            values = (self._instance, json.dumps(list(effects.progress)), outbox.pack(effects.outbox))
            row_id = writer.execute(_Q["put_outbox"], values).lastrowid
        writer.execute("COMMIT")
        return row_id

    async def rollback(self) -> None:
        """See `Store.rollback`."""
        if self._is_open and self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    async def _run(self, work: Callable[[], T]) -> T:
        """Do blocking work on the store's own thread; its errors become choreo's."""

        def guarded() -> T:
            with passing(self._path):
                return work()

        working = asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            while not working.done():  # until then the connection is the thread's
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({working})
            raise


def _statements(script: str) -> list[str]:
    """A script's statements one by one: `executescript` would commit the transaction they belong to."""
    statements, current = [], ""
    for part in f"{script}\n".split(";"):  # the last one may end in a comment
        current += f"{part};"
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
