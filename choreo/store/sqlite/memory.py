"""The SQLite store in memory: for tests. It keeps every promise of the port but durability."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from choreo.store.port import Effects
from choreo.store.sql import load_queries
from choreo.store.sqlite import opening
from choreo.store.sqlite.database import passing
from choreo.store.sqlite.store import OF_CONNECTION, SqliteStore

_Q = load_queries("choreo.store.sqlite")

T = TypeVar("T")


def database() -> sqlite3.Connection:
    """A database in memory, which lives as long as this connection."""
    return sqlite3.connect(":memory:", isolation_level=None, cached_statements=256, check_same_thread=False)


class MemoryStore(SqliteStore):
    """Implements `Store` over a connection that outlives it. No thread; several on one connection take turns.

    Args:
        connection: see `database`.
        name: what errors call it.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        super().__init__(Path(name))
        self._writer = self._reader = connection
        self._holds = False
        """Whether the transaction that may be open is ours."""

    def _open(self, service: str, tables: str) -> None:
        writer = self._writer
        if writer.in_transaction:
            raise sqlite3.OperationalError("a transaction is open")
        writer.execute("BEGIN")
        try:
            opening.migrate(writer, self._path, service, tables)
            if writer.execute("SELECT count(*) FROM temp.sqlite_master").fetchone() == (0,):
                for made in OF_CONNECTION:
                    writer.execute(_Q[made])
        except BaseException:
            writer.execute("ROLLBACK")
            raise
        writer.execute("COMMIT")

    def _close(self) -> None:
        if self.in_transaction:
            self._writer.execute("ROLLBACK")
        self._holds = False

    @property
    def in_transaction(self) -> bool:
        return self._holds and self._writer.in_transaction

    async def begin(self) -> None:
        while self._writer.in_transaction:
            await asyncio.sleep(0)
        self._execute("BEGIN")
        self._holds = True

    async def commit(self, effects: Effects) -> int | None:
        if not self.in_transaction:
            await self.begin()
        try:
            return await super().commit(effects)
        finally:
            self._holds = False

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()
        self._holds = False

    async def _run(self, work: Callable[[], T]) -> T:
        with passing(self._path):
            return work()
