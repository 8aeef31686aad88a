"""Publishing from one's own database transaction outside any handler: a web request, a script.

Rows and events are written in one transaction of a store; what is committed is published from memory at once, and a relay
publishes what a writer that died has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import structlog

from choreo.errors import LogUnavailableError, StoreError
from choreo.log.port import Log, NewRecord
from choreo.runtime.clock import Clock
from choreo.runtime.housekeeping import publish_left
from choreo.runtime.operations import Operations
from choreo.runtime.publisher import Publisher
from choreo.store.port import Effects, OutboxRow, Store
from choreo.store.waiting import to_its_end

_log = structlog.get_logger("choreo.runtime")
_MOST_WAITING = 100_000
"""How many committed events may wait in memory while the log takes none."""

D = TypeVar("D")


class Transaction(Generic[D]):
    """A running transaction of a store.

    Attributes:
        db: the store's connection; see `Context.db`.
        publish: as `Bus.publish`, but part of the transaction, and nothing to wait for.
    """

    def __init__(self, db: D, publish: Callable[..., str]) -> None:
        self.db = db
        self.publish = publish


class Outbox:
    """The outbox of a store that is written to from outside its service.

    Args:
        store: open.
        operations: told of what is published.
        grace: seconds that publishing may take when it is closed; what is left then, the next relay publishes.
    """

    def __init__(self, store: Store, log: Log, clock: Clock, grace: float, operations: Operations) -> None:
        self._store, self._grace, self._client = store, grace, operations.client
        self._publisher = Publisher(log, clock, self._on_published, operations)
        self._ticked: list[int] = []
        self._lock = asyncio.Lock()  # held by whoever uses the store's connection
        relay = publish_left(operations.client, self._left, self._publisher, clock)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work) for work in (self._publisher.run(), relay)]

    @asynccontextmanager
    async def transaction(self, records: Callable[[], Awaitable[list[NewRecord]]]) -> AsyncIterator[Store]:
        """One transaction; `records` is asked at its end what to publish.

        Raises:
            LogUnavailableError: too much waits for the log already.
            StoreUnavailableError: nothing was written.
        """
        if self._publisher.backlog >= _MOST_WAITING:
            raise LogUnavailableError(
                f"{self._publisher.backlog:,} committed events wait for the log", remedy="try again when it is back"
            )
        async with self._lock:
            try:
                await self._store.begin()
                yield self._store
                await self._commit(await records())
            except BaseException:
                await self._store.rollback()
                raise

    async def _commit(self, records: Sequence[NewRecord] = ()) -> None:
        # What is committed must be published before what comes later, though whoever asked for it be cancelled.
        await to_its_end(asyncio.ensure_future(self._write(records)))

    async def _write(self, records: Sequence[NewRecord]) -> None:
        ticked, self._ticked = self._ticked, []
        try:
            row = await self._store.commit(Effects(progress={}, outbox=records, ticked=ticked))
        except BaseException:
            self._ticked += ticked
            raise
        if row is not None:
            self._publisher.put(row, list(records))

    def _on_published(self, rows: Sequence[int]) -> None:
        self._ticked += rows

    async def _left(self, before_ms: int) -> list[OutboxRow]:
        async with self._lock:
            if self._ticked:
                await self._commit()
            return await self._store.abandoned(before_ms)

    async def close(self) -> None:
        """Publish the rest, as far as the log takes it, and close the store."""
        try:
            async with asyncio.timeout(self._grace):
                await self._publisher.drained()
                async with self._lock:  # not for ever: a transaction may be open that nobody ends
                    await self._commit()
        except (TimeoutError, StoreError) as error:
            _log.warning(
                "the outbox keeps what the log has not taken, for the next relay",
                service=self._client,
                error=str(error),
            )
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._store.close()
