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


class MemoryDatabase:
    """A database in memory, which outlives the stores over it.

    Attributes:
        turn: held by the store whose transaction is open.
    """

    def __init__(self) -> None:
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=256, check_same_thread=False
        )
        self.turn = asyncio.Lock()


class MemoryStore(SqliteStore):
    """Implements `Store`; everything is done on the event loop's thread, and several over one database take turns.

    Args:
        name: what errors call it.
        now_ms: the clock by which inbox and outbox are dated.
    """

    def __init__(self, database: MemoryDatabase, name: str, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(Path(name))
        self._database = database
        self._writer = self._reader = database.connection
        self._turn = database.turn
        self._now_ms = now_ms or self._now_ms
        self._has_turn = False

    async def open(self, service: str, tables: str = "") -> None:
        async with self._turn:
            await super().open(service, tables)

    def _open(self, service: str, tables: str) -> None:
        self._migrate(service, tables)
        if self._writer.execute("SELECT count(*) FROM temp.sqlite_master").fetchone() == (0,):
            for made in OF_CONNECTION:
                self._writer.execute(_Q[made])

    def _migrate(self, service: str, tables: str) -> None:
        self._writer.execute("BEGIN")
        try:
            opening.migrate(self._writer, self._path, service, tables)
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def _close(self) -> None:
        if self._has_turn and self._database.connection.in_transaction:
            self._database.connection.execute("ROLLBACK")
        self._end_turn()

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turn.release()

    @property
    def in_transaction(self) -> bool:
        return self._has_turn and super().in_transaction

    async def begin(self) -> None:
        await self._turn.acquire()
        self._has_turn = True
        try:
            self._execute("BEGIN")
        except BaseException:
            self._end_turn()
            raise

    async def commit(self, effects: Effects) -> int | None:
        if not self.in_transaction:
            await self.begin()
        return await super().commit(effects)

    async def _finish(self, work: Callable[[], T], *, at_once: bool = False) -> T:
        try:
            return await super()._finish(work, at_once=at_once)
        finally:
            self._end_turn()

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()
        self._end_turn()

    async def _run(self, work: Callable[[], T]) -> T:
        with passing(self._path):
            return work()
