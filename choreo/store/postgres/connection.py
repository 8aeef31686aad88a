"""One connection to PostgreSQL: made again when it is lost, never waited for without end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from choreo.errors import StoreUnavailableError
from choreo.store.postgres.address import Address
from choreo.store.postgres.trouble import explain
from choreo.store.sql import is_numbered
from choreo.store.waiting import to_its_end

_Psycopg: TypeAlias = "psycopg.AsyncConnection[tuple[Any, ...]]"
Cursor: TypeAlias = "psycopg.AsyncCursor[tuple[Any, ...]]"
Parameters: TypeAlias = "Sequence[Any] | Mapping[str, Any] | None"
Statement: TypeAlias = "tuple[bytes, Parameters]"
T = TypeVar("T")

# A warning beside each error that is reported here anyway.
logging.getLogger("psycopg").addFilter(lambda record: not str(record.msg).startswith("error ignored terminating"))

_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms; data that nobody acknowledges
}
_PATIENCE = 20.0
"""Seconds for one answer; the server itself ends every wait for a lock before."""
# A handler may hold its transaction for 15 s, and stand still in it all that time.
_SETTINGS = """
SET lock_timeout = '8s';
SET idle_in_transaction_session_timeout = '30s';
SET default_transaction_isolation = 'read committed';
SET client_min_messages = 'warning';
SET search_path = {schema}, public;
"""


def _cursor(connection: _Psycopg, statement: bytes) -> Cursor:
    """What runs a statement: with the server's own placeholders, or with the client's `%s`."""
    return psycopg.AsyncRawCursor(connection) if is_numbered(statement.decode()) else connection.cursor()


class Connection:
    """A connection in autocommit: transactions are begun and ended in words.

    Args:
        name: how the server's own views call it.
        settings: further SQL to run whenever it is made.
        binary: whether answers come as bytes instead of text, in half of the time. Not for types that psycopg may not know.
    """

    def __init__(self, address: Address, schema: str, name: str, settings: str = "", *, binary: bool = False) -> None:
        self._binary = binary
        self._address = address
        self._name = name
        self._settings = sql.SQL(_SETTINGS).format(schema=sql.Identifier(schema)).as_string() + settings
        self._opening = asyncio.Lock()
        self._connection: _Psycopg | None = None

    async def open(self, *, opening: bool = False) -> None:
        """Connect, unless that is so.

        Args:
            opening: whether the service is starting; see `trouble.explain`.

        Raises:
            StoreUnavailableError, ConfigurationError: it cannot be had.
        """
        async with self._opening:
            if self.is_open:
                return
            try:
                async with asyncio.timeout(_CONNECT["connect_timeout"] * 2):  # of several hosts each gets its time
                    self._connection = await psycopg.AsyncConnection.connect(
                        self._address.conninfo, autocommit=True, prepare_threshold=0, application_name=self._name,
                        **_CONNECT,
                    )  # fmt: skip
            except TimeoutError as error:
                raise self._silent() from error
            except psycopg.Error as error:
                raise explain(error, self._address.shown, opening=opening) or error from error
            try:
                await self.script(self._settings)
            except BaseException:
                await self.close()  # without its schema it must not be used
                raise

    @property
    def is_open(self) -> bool:
        """Whether it can be used; a loss shows at the next use."""
        return self._connection is not None and not self._connection.closed

    @property
    def in_transaction(self) -> bool:
        """Whether the server has a transaction open for it, a failed one included."""
        return self._status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    @property
    def has_failed(self) -> bool:
        """Whether a statement has failed since the last savepoint."""
        return self._status == TransactionStatus.INERROR

    @property
    def _status(self) -> TransactionStatus:
        return TransactionStatus.UNKNOWN if self._connection is None else self._connection.info.transaction_status

    async def run(self, *statements: Statement, stops: bool = False) -> list[Cursor]:
        """Run statements in one round trip; those after a failed one are not run.

        Whoever is cancelled here gets the answer awaited first: until then nobody else can use the connection.

        Args:
            stops: whether to ask the server to stop when cancelled.

        Raises:
            StoreUnavailableError: the store's own trouble. The connection is closed, the transaction undone.
            psycopg.Error: the statement's.
        """

        async def work(connection: _Psycopg) -> list[Cursor]:
            if len(statements) == 1:
                return [await _cursor(connection, statements[0][0]).execute(*statements[0], binary=self._binary)]
            async with connection.pipeline():
                return [
                    await _cursor(connection, text).execute(text, parameters, binary=self._binary)
                    for text, parameters in statements
                ]

        return await self._finish(work, stops=stops)

    async def script(self, text: str) -> None:
        """Run any number of statements without parameters. Raises as `run` does."""
        await self._finish(lambda connection: connection.execute(text.encode(), prepare=False))

    async def run_many(self, statement: bytes, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement once per row, in one round trip. Raises as `run` does."""
        await self._finish(lambda connection: _cursor(connection, statement).executemany(statement, rows), stops=True)

    async def _finish(self, work: Callable[[_Psycopg], Awaitable[T]], *, stops: bool = False) -> T:
        working = asyncio.ensure_future(self._answer(work))
        overdue = asyncio.get_running_loop().call_later(_PATIENCE, self._abandon, working)
        try:
            return await to_its_end(working, self._stop if stops else None)
        finally:
            overdue.cancel()

    def _abandon(self, working: asyncio.Future[T]) -> None:
        """Give up a server that accepts and never answers; no word of farewell would reach it either."""
        if self._connection is not None:
            self._connection.pgconn.finish()
        working.cancel()

    async def _stop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                await self._connection.cancel_safe(timeout=2)

    async def _answer(self, work: Callable[[_Psycopg], Awaitable[T]]) -> T:
        """What the server answers; what goes wrong with it becomes choreo's."""
        if self._connection is None:
            raise StoreUnavailableError(f"the store {self._address.shown} is not connected")
        try:
            return await work(self._connection)
        except asyncio.CancelledError:  # by `_abandon`
            raise self._silent() from None
        except psycopg.Error as error:
            trouble = explain(error, self._address.shown)
            if trouble is None:
                raise
            await self.close()  # what is left of it is of no use: the next one begins anew
            raise trouble from error

    def _silent(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"the store {self._address.shown} gives no answer", remedy="is the server alive?")

    async def close(self) -> None:
        """Free it; what is not committed is undone. May be repeated."""
        if self._connection is not None:
            await self._connection.close()
