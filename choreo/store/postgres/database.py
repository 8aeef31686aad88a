"""The running transaction of a PostgreSQL store, and `ctx.db` in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from choreo.errors import StoreError, StoreUnavailableError
from choreo.store.port import Row
from choreo.store.postgres.connection import Connection, Cursor, Statement
from choreo.store.sql import beginning_with, refuse

_TRANSACTION_CONTROL = beginning_with(
    r"BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION"
)
# psycopg forgets its prepared statements after these, which goes wrong when others follow in one round trip.
_RUN_ALONE = beginning_with("DROP|ALTER|DISCARD|DEALLOCATE")
_BEGIN: Statement = (b"BEGIN", None)
_NAMES = b"choreo_handler_a", b"choreo_handler_b"
"""Savepoints take turns: going back to one that was never made fails, instead of undoing another handler's writes."""


class Transaction:
    """One transaction at a time. What cannot fail waits for the next statement and shares its round trip.

    Args:
        why: asked when the store fails: the error to raise instead.

    Attributes:
        is_open: from `begin` to `end`, also when the server has undone it meanwhile.
        checks: what makes a handler's deferred constraints speak up while they are still its own.
    """

    def __init__(self, connection: Connection, why: Callable[[StoreUnavailableError], Awaitable[StoreError]]) -> None:
        self._connection = connection
        self._why = why
        self._unsent: list[Statement] = []
        self._lost: StoreError | None = None
        self._turns = asyncio.Lock()
        self._turn = False
        self.is_open = False
        self.checks: list[Statement] = []

    def begin(self) -> None:
        """Open it."""
        self.end()
        self.is_open = True
        self._unsent = [_BEGIN]

    def end(self) -> None:
        """It is over, committed or undone."""
        self.is_open, self._unsent, self._lost = False, [], None

    async def run(self, *statements: Statement, stops: bool = False) -> list[Cursor]:
        """Run statements in it, in one round trip; see `Connection.run`. Those of a handler's sub-tasks take turns."""
        async with self._turns:
            return await self._send(*statements, stops=stops)

    async def run_many(self, statement: bytes, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement once per row."""
        async with self._turns:
            await self._send()
            async with self._noticing():
                await self._connection.run_many(statement, rows)

    async def _send(self, *statements: Statement, stops: bool = False) -> list[Cursor]:
        if self._lost is None and _BEGIN not in self._unsent and not self._connection.in_transaction:
            await self._lose("the server knows of no transaction")  # what ran now would be committed at once
        if self._lost is not None:
            raise self._lost
        unsent, self._unsent = self._unsent, []
        async with self._noticing():
            return (await self._connection.run(*unsent, *statements, stops=stops))[len(unsent) :]

    @asynccontextmanager
    async def _noticing(self) -> AsyncIterator[None]:
        """A store that fails inside has lost the transaction."""
        try:
            yield
        except StoreUnavailableError as error:
            self._lost = await self._why(error)
            raise self._lost from error

    async def _lose(self, reason: str) -> None:
        """Give it up; nothing of it can be committed any more."""
        await self._connection.close()
        self._lost = StoreUnavailableError("the store has lost its transaction", why=reason)

    # --- a handler's part of it -----------------------------------------------------------------------------------

    def savepoint(self) -> None:
        self._turn = not self._turn
        self._unsent.append(self._control(b"SAVEPOINT"))

    async def release(self) -> None:
        """See `Store.release_savepoint`.

        Raises:
            StoreError: a statement of the handler had failed, and PostgreSQL keeps nothing of what surrounds one.
            psycopg.IntegrityError: one of its deferred constraints does not hold.
        """
        async with self._turns:  # what a sub-task of the handler has asked for comes before
            if self._is_untouched():
                self._unsent.pop()
            elif self._connection.has_failed:
                raise StoreError(
                    "what the handler wrote cannot be kept",
                    why="one of its statements failed and it went on",
                    remedy="let the error end the handler, or avoid it (INSERT ... ON CONFLICT)",
                )
            elif self.checks:
                await self._send(*self.checks, self._control(b"RELEASE"))
            else:
                self._unsent.append(self._control(b"RELEASE"))

    async def undo(self) -> None:
        async with self._turns:
            if self._is_untouched():
                self._unsent.pop()
                return
            try:
                await self._send(self._control(b"ROLLBACK TO"))
            except psycopg.Error as error:
                await self._lose(str(error))
                raise self._lost or error from error
            self._unsent.append(self._control(b"RELEASE"))

    def _is_untouched(self) -> bool:
        return self._unsent[-1:] == [self._control(b"SAVEPOINT")]

    def _control(self, verb: bytes) -> Statement:
        return verb + b" " + _NAMES[self._turn], None


class PostgresDatabase:
    """Implements `Database`: the transaction as handlers see it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def _run(self, sql: str, parameters: Sequence[Any]) -> Cursor:
        refuse(_TRANSACTION_CONTROL, sql)
        if _RUN_ALONE.match(sql):
            await self._transaction.run()
        (cursor,) = await self._transaction.run((sql.encode(), parameters or None), stops=True)
        return cursor

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return (await self._run(sql, parameters)).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        refuse(_TRANSACTION_CONTROL, sql)
        if listed := list(rows):
            await self._transaction.run_many(sql.encode(), listed)

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        cursor = await self._run(sql, parameters)
        return await cursor.fetchone() if cursor.description else None

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        cursor = await self._run(sql, parameters)
        return await cursor.fetchall() if cursor.description else []
