"""`ctx.db` on SQLite, and how SQLite's errors become choreo's."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from choreo.errors import StoreUnavailableError
from choreo.store.port import Row
from choreo.store.sql import beginning_with, by_number, is_numbered, refuse

_LOCK_WAIT = 30.0
"""Seconds to wait for another process's transaction."""

_PASSING = {
    sqlite3.SQLITE_BUSY: "another process holds its lock for too long",
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check the path and its rights",
    sqlite3.SQLITE_READONLY: "the file is read-only; check its rights",
    sqlite3.SQLITE_PERM: "the file may not be accessed; check its rights",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it, or move it away to rebuild from the log",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; name another one",
}

_TRANSACTION_CONTROL = beginning_with(r"BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|(?:INSERT|UPDATE)\s+OR\s+ROLLBACK")


class passing:  # noqa: N801 - reads as a verb where it is used
    """Turn errors of the store itself (not of somebody's SQL) into `StoreUnavailableError`.

    A class, since a generator takes ten times as long to enter and leave, and this is done several times a transaction.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise StoreUnavailableError(f"the store {self._path} is not usable", why=str(error)) from error
        if isinstance(error, sqlite3.DatabaseError):
            reason = _PASSING.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if reason is not None:
                what = f"the store {self._path} is not usable"
                raise StoreUnavailableError(what, why=str(error), remedy=reason) from error


def is_busy(error: BaseException | None) -> bool:
    """Whether a statement failed because another process writes."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def begin_patiently(writer: sqlite3.Connection) -> None:
    """Open a transaction, waiting for another process's, off the event loop.

    SQLite's own waiting sleeps up to 100 ms at a time, in which a busy instance comes first over and over.
    """
    begun = time.monotonic()
    while True:
        try:
            writer.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > begun + _LOCK_WAIT:
                raise
        time.sleep(0.001)


class SqliteDatabase:
    """Implements `Database`: the writer connection as handlers see it. Statements run on the calling thread: they are local and short."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def _ready(self, sql: str) -> sqlite3.Connection:
        """The connection, if this statement may run; see `refuse`."""
        refuse(_TRANSACTION_CONTROL, sql)
        return self._connection

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with passing(self._path):
            return self._run(sql, parameters).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        bound = map(by_number, rows) if is_numbered(sql) else rows
        with passing(self._path):
            self._ready(sql).executemany(sql, bound)

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        with passing(self._path):
            row: Row | None = self._run(sql, parameters).fetchone()
            return row

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with passing(self._path):
            return self._run(sql, parameters).fetchall()

    def _run(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        return self._ready(sql).execute(sql, by_number(parameters) if is_numbered(sql) else parameters)
