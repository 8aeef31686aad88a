"""One handler run: its use of the store's connection, how it is told to end, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry.context import detach

from choreo.errors import ChoreoError, StoreUnavailableError
from choreo.events import Event
from choreo.handler import Handler
from choreo.runtime.deadletter import Stage
from choreo.runtime.partitions import AbandonedError, Job
from choreo.runtime.sagas.turn import Turn
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import Database, Store


class Session:
    """One handler run, and its use of the store's connection: under a savepoint, from the first use to the end.

    Attributes:
        closed: whether the handler has returned.
        ended: how often it was told to end, because it took too long.
        entered: whether it holds the connection.
        stage: what fails if it fails now.
        job: what the run is for.
        kept: whether its writes are kept, and can be undone with the whole transaction only.
        turn: what it is to do, if more than the event decides.
        started: the first events of sagas that the handler has begun, with their ids.
        begun: when it was called, by `time.perf_counter`.
        context: what leaves the span that is current in it, if one is.
        remembered: the key of notes that are needed no more once the handler has taken effect.
    """

    __slots__ = (
        *("_cause", "_entering", "_unit", "_worker", "begun", "closed", "context", "ended", "entered"),
        *("handler", "job", "kept", "remembered", "stage", "started", "turn"),
    )

    def __init__(self, unit: UnitOfWork, job: Job, handler: Handler, worker: asyncio.Task[Any]) -> None:
        self._worker = worker
        self._unit = unit
        self.job = job
        self._entering: asyncio.Future[None] | None = None
        self.handler = handler
        self.begun = 0.0
        self.context: Any = None
        self.ended = 0
        self.entered = False
        self.closed = False
        self.kept = False
        self.stage: Stage = "handle"
        self.turn: Turn | None = None
        self.remembered: bytes | None = None
        self.started: list[tuple[str, Event]] = []

    @property
    def store(self) -> Store:
        """The service's store, for what is no part of the transaction."""
        return self._unit.store

    async def apart(self, work: Callable[[], Awaitable[None]]) -> None:
        """See `UnitOfWork.apart`."""
        self.check_free()
        await self._unit.apart(work)

    def check_free(self) -> None:
        """Whether the handler may use the store apart: one that holds the connection would wait for itself.

        Raises:
            ChoreoError: it holds the connection, or is about to.
            AbandonedError: its partition is no longer ours.
        """
        self.check()
        if self.entered or self._entering is not None:
            raise ChoreoError(
                "ctx.step was used while another task of the handler uses ctx.db",
                why="its result is committed at once, and what the handler wrote is not",
                remedy="make the steps first, then write",
            )

    @property
    def database(self) -> Database:
        """The store, as handlers see it."""
        return self._unit.store.db

    async def enter(self) -> None:
        """Take the connection; the handler's own sub-tasks that come meanwhile wait for it."""
        while self._entering is not None:
            await asyncio.shield(self._entering)
        if self.entered:
            return
        self._entering = asyncio.get_running_loop().create_future()
        try:
            await self._acquire()
        finally:
            entering, self._entering = self._entering, None
            entering.set_result(None)

    async def _acquire(self) -> None:
        unit = self._unit
        await unit.lock.acquire()
        try:
            self.check()
            await unit.clear()
            if not unit.store.in_transaction:
                await unit.store.begin()
            await unit.store.savepoint()
            self.check()  # again: the handler may have ended meanwhile, and nobody would call `leave`
        except BaseException:
            unit.changed.set()
            unit.lock.release()
            raise
        self.entered = True

    def end(self, cause: Exception) -> None:
        """Tell the handler to end."""
        self._cause = cause
        self.ended += 1
        self._worker.cancel()

    def reason(self, error: BaseException | None) -> BaseException | None:
        """Why the handler ended: what it raised, unless that comes of our own impatience."""
        others = self._worker.cancelling() - self.ended
        for _ in range(self.ended):
            self._worker.uncancel()
        return error if error is None or others > 0 or not self.ended else self._cause

    def check(self) -> None:
        """Whether the handler may use the connection.

        Raises:
            ChoreoError: it has ended; this is some task that it left behind.
            AbandonedError: its partition is no longer ours.
            StoreUnavailableError: the store has rolled back after an error; going on would write outside a transaction.
        """
        if self.closed:
            raise ChoreoError(
                "ctx.db was used after its handler had ended",
                remedy="await everything that uses ctx.db inside the handler",
            )
        if self.job.partition.gone:
            raise AbandonedError
        if self.entered and not self._unit.store.in_transaction:
            raise StoreUnavailableError("the store has lost its transaction", remedy="see the error before this one")

    async def keep(self) -> None:
        """The handler's writes stay. The connection is given back by `leave`, once its effects are added."""
        self.closed = True
        if self.entered:
            await self._unit.store.release_savepoint()
        self.kept = True

    async def undo(self) -> None:
        """The handler's writes go."""
        self.closed = True
        if self.entered:
            await self._unit.store.rollback_to_savepoint()

    def leave(self) -> None:
        """Give the connection back, and be out of its span."""
        self.closed = True
        if self.context is not None:
            detach(self.context)
            self.context = None
        if self.entered:
            self.entered = False
            self._unit.changed.set()
            self._unit.lock.release()
