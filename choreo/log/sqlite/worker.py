"""Threads that own a connection to the log's file, so that nothing of SQLite happens on the event loop."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from choreo.errors import ChoreoError, ConfigurationError, LogError, LogUnavailableError

_logger = logging.getLogger(__name__)
T = TypeVar("T")

Synchronous: TypeAlias = Literal["full", "normal"]

_APPLICATION_ID = 0x63686C67  # "chlg"
_VERSION = 1
_BUSY_TIMEOUT = 10.0
_PASSING = {
    "SQLITE_FULL": ("the disk is full", "free some room; appending works again as soon as there is some"),
    "SQLITE_BUSY": ("another process has held its lock for 10 seconds", "see which one: fuser, lsof"),
    "SQLITE_READONLY": ("it may not be written", "give this user the right to write the file and its folder"),
    "SQLITE_IOERR": ("reading or writing failed", "look at the disk, its free room and the limits of this process"),
}
_PERMANENT = {
    "SQLITE_CANTOPEN": ("it cannot be opened or made", "name a file in a folder this user may write to"),
    "SQLITE_NOTADB": ("it is no SQLite file", "name another file, or move this one away"),
    "SQLITE_CORRUPT": ("it is damaged", "stop all its users, then restore a copy or try: sqlite3 FILE .recover"),
    "SQLITE_PERM": ("this user has no right to it", "give this user the right to write the file and its folder"),
}


def explain(error: sqlite3.Error, path: Path, *, opening: bool) -> ChoreoError:
    """What an error of SQLite means to the user of this file."""
    name = getattr(error, "sqlite_errorname", "")
    code = "_".join(name.split("_")[:2])  # extended names say more than is needed: SQLITE_IOERR_WRITE
    if code in _PASSING and not (opening and code == "SQLITE_READONLY"):
        why, remedy = _PASSING[code]
        return LogUnavailableError(f"log {path} is unavailable", why=f"{why} ({name})", remedy=remedy)
    why, remedy = (_PERMANENT | _PASSING).get(code, (str(error), "see the error this one came from"))
    kind = ConfigurationError if opening else LogError
    return kind(f"log {path} cannot be used", why=f"{why} ({name})", remedy=remedy)


def connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """Open the file and make the log's tables in it, unless they are there.

    Raises:
        ConfigurationError, LogUnavailableError: see `explain`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, cached_statements=256)
    except OSError as error:
        raise ConfigurationError(
            f"log {path} cannot be opened", why=str(error), remedy="name a file in a folder this user may write to"
        ) from error
    except sqlite3.Error as error:
        raise explain(error, path, opening=True) from error
    try:
        _prepare(connection, path, synchronous)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path, opening=True) from error
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: Synchronous) -> None:
    made = _is_made(connection, path)
    connection.execute("PRAGMA page_size = 8192")
    _use_wal(connection, path)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    if not made:
        _make_tables(connection, path)


def _is_made(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the log's tables are there. Refuses a file that is something else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application == _APPLICATION_ID and version > _VERSION:
        raise ConfigurationError(f"log {path} was written by a newer choreo", remedy="upgrade choreo here")
    if application != _APPLICATION_ID and tables:
        raise ConfigurationError(
            f"{path} is a SQLite file, but no log of choreo", remedy="name another file; a log has its file for itself"
        )
    return bool(tables)


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Readers and the writer do not wait for each other in this mode, which the file then keeps."""
    (mode,) = patiently(connection, "PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigurationError(
            f"log {path} cannot be shared", why="its file system allows no WAL", remedy="put it on a local disk"
        )


def patiently(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Run a statement that needs a lock, when it is free.

    SQLite's own waiting sleeps up to 100 ms at a time, in which others come first over and over, and it does not
    wait at all when two processes make the file at once.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    patiently(connection, "BEGIN IMMEDIATE")
    if not _is_made(connection, path):  # one process makes the tables, the others find them made
        for statement in resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8").split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


class _Job(NamedTuple):
    future: asyncio.Future[Any] | None
    run: Callable[[sqlite3.Connection], Any]


_Outcome: TypeAlias = "tuple[asyncio.Future[Any] | None, Any, BaseException | None]"


class Worker:
    """A thread with its own connection, which runs jobs in transactions, those that wait together in one.

    Args:
        path: the log's file.
        synchronous: SQLite's own setting; with "full" a commit is on disk when it returns.
        begin: opens a transaction.
        at_once: how many jobs may share one.
    """

    def __init__(
        self, path: Path, synchronous: Synchronous, *, begin: str = "BEGIN IMMEDIATE", at_once: int = 32
    ) -> None:
        self._path, self._synchronous, self._begin, self._at_once = path, synchronous, begin, at_once
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Serve jobs for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, name=f"choreo-log-{self._path.name}", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job on the thread. A LogError that it raises must come before its first write.

        Raises:
            LogUnavailableError: it has changed nothing, unless the commit itself failed.
        """
        if self._thread is None or self._closed:
            raise LogError(f"log {self._path} is not open", remedy="use it inside: async with open_log(url) as log")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(future, job))
        return await future

    def post(self, job: Callable[[sqlite3.Connection], None]) -> None:
        """Run a job that nobody waits for. May be called on any thread."""
        self._jobs.put(_Job(None, job))

    async def close(self) -> None:
        """Finish what was asked for, then end the thread."""
        if self._thread and not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        running = True
        while running:
            waiting = [self._jobs.get()]
            while len(waiting) < self._at_once and not self._jobs.empty():
                waiting.append(self._jobs.get())
            running = None not in waiting
            outcomes = self._transact([job for job in waiting if job])
            try:
                self._loop.call_soon_threadsafe(_resolve, outcomes)
            except RuntimeError:  # the event loop has ended without closing the log
                running = False
        if self._connection:
            self._connection.close()

    def _transact(self, jobs: list[_Job]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        try:
            if self._connection is None:
                self._connection = connect(self._path, self._synchronous)
                if self._begin == "BEGIN IMMEDIATE":
                    self._connection.execute("PRAGMA busy_timeout = 0")  # `patiently` does the waiting
            patiently(self._connection, self._begin)
            for job in jobs:
                try:
                    outcomes.append((job.future, job.run(self._connection), None))
                except LogError as error:
                    outcomes.append((job.future, None, error))
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - belongs to whoever asked
            self._roll_back()
            if len(jobs) > 1:  # one of them may be to blame: let the others have their way
                return [outcome for job in jobs for outcome in self._transact([job])]
            known = explain(error, self._path, opening=False) if isinstance(error, sqlite3.Error) else error
            return [(job.future, None, known) for job in jobs]
        return outcomes

    def _roll_back(self) -> None:
        connection = self._connection
        if connection and connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:  # begin afresh: what is unfinished ends with its connection
                self._connection = None
                connection.close()


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future is None:
            if error:
                _logger.warning("upkeep of a log failed: %s", error)
        elif future.done():  # nobody waits any more
            pass
        elif error:
            future.set_exception(error)
        else:
            future.set_result(result)
