"""What a handler gets beside its event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

import structlog

from choreo.events import Event
from choreo.handler import Handler
from choreo.runtime.emit import undeclared
from choreo.runtime.partitions import Job, identity
from choreo.runtime.remember import Steps, adapter_of, dump
from choreo.runtime.sagas.turn import Call
from choreo.runtime.session import Session
from choreo.store.port import Database, Row
from choreo.wire.ids import derive_event_id

T = TypeVar("T")

_IDEMPOTENCY_ORDINAL = -1
"""Stands where an emitted event's ordinal would, so that the key differs from every event id."""


class HandlerDatabase:
    """The service's store inside this batch's transaction, under a savepoint of this handler run.

    The first call takes the store's connection until the handler ends, so make slow outside calls before it.
    SQL is the store's own, with its parameters as `$1, $2, …` (or SQLite's `?`, PostgreSQL's `%s`). Statements that end or
    nest transactions are refused.
    """

    __slots__ = ("_database", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._database = session.database

    async def _ready(self) -> Database:
        self._session.check()
        if not self._session.entered:
            await self._session.enter()
        return self._database

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        return await (await self._ready()).execute(sql, parameters)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement once per row."""
        await (await self._ready()).execute_many(sql, rows)

    async def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, or None."""
        return await (await self._ready()).fetch_one(sql, parameters)

    async def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows."""
        return await (await self._ready()).fetch_all(sql, parameters)


class _About:
    """What both kinds of context tell about the event."""

    __slots__ = ("_call", "_database", "_handler", "_job", "_log", "_session", "_steps", "attempt", "state")

    def __init__(self, job: Job, handler: Handler, attempt: int, state: Any, session: Session, call: Call) -> None:
        self._job = job
        self._handler = handler
        self._session = session
        self._call = call
        self._steps: Any = None
        self._database: Any = None
        self._log: Any = None
        self.attempt = attempt
        self.state = state

    @property
    def event_id(self) -> str:
        """The event's id; the same in every redelivery."""
        return self._job.metadata.event_id

    @property
    def correlation_id(self) -> str:
        """The saga it belongs to."""
        return self._job.metadata.correlation_id

    @property
    def causation_id(self) -> str | None:
        """The event that caused it; None for the first of a saga."""
        return self._job.metadata.causation_id

    @property
    def time(self) -> datetime:
        """When the event was emitted, by its producer's clock."""
        return datetime.fromisoformat(self._job.metadata.time)

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt and after every crash: hand it to outside services that know idempotency keys."""
        job, handler, call = self._job, self._handler, self._call
        scope, subject = call.scope, call.subject
        return derive_event_id(
            *(subject or job.metadata.event_id, handler.service, handler.name + scope, _IDEMPOTENCY_ORDINAL),
            time_ms=0 if subject else job.record.timestamp,
        )

    def start_saga(self, event: Event) -> str:
        """Begin a saga of its own with this event, published with what the handler emits; the saga knows its parent.

        The return annotation names the event's class too.

        Returns:
            The new saga's correlation id, the same in every attempt.

        Raises:
            UndeclaredEmissionError: the return annotation does not name the event's class.
        """
        job, handler, started = self._job, self._handler, self._session.started
        if type(event) not in handler.emits.classes:
            raise undeclared(handler, f"a {type(event).__name__} that begins a saga")
        source = f"{handler.name}{self._call.scope}/saga"
        event_id = derive_event_id(
            job.metadata.event_id, handler.service, source, len(started), time_ms=job.record.timestamp
        )
        started.append((event_id, event))
        return event_id

    @property
    def _remembered(self) -> Steps:
        if self._steps is None:
            about = self._call.subject or self._job.metadata.event_id
            self._steps = Steps(self._session, self._job, f"{self._handler.name}{self._call.scope}", about)
        steps: Steps = self._steps
        return steps

    @property
    def log(self) -> Any:
        """A structlog logger bound to service, handler, event and saga."""
        if self._log is None:
            self._log = structlog.get_logger("choreo.handler").bind(**identity(self._job, self._handler))
        return self._log


class Context(_About):
    """What an `async def` handler gets beside its event.

    Attributes:
        attempt: which call this is for this event, from 1; those made in the lane are counted anew after a restart.
        state: what the service's `lifespan` yielded; None without one.
    """

    __slots__ = ()

    @property
    def db(self) -> HandlerDatabase:
        """The service's store, in the same transaction as inbox and outbox."""
        if self._database is None:
            self._database = HandlerDatabase(self._session)
        database: HandlerDatabase = self._database
        return database

    @overload
    async def step(
        self, name: str, function: Callable[..., Awaitable[T]], *args: Any, returns: type[T] | None = None
    ) -> T: ...

    @overload
    async def step(self, name: str, function: Callable[..., T], *args: Any, returns: type[T] | None = None) -> T: ...

    async def step(self, name: str, function: Callable[..., Any], *args: Any, returns: Any = None) -> Any:
        """Call a function once for this event, and remember its result: in a later attempt it is not called again.

            quote = await ctx.step("price", pricing.quote, claim)

        The result is in the store before this returns. Make such calls before the first use of `ctx.db`.

        Args:
            name: what the result is remembered by; each step of a handler has its own.
            function: an `async def` or a function that does not block, called with `args`.
            returns: the result's type, if the function's annotation does not say; anything pydantic can write as JSON.

        Returns:
            The result, always as it is read back.

        Raises:
            ChoreoError: `ctx.db` was used before, a name is used twice, or the result is not JSON.
        """
        return await self._remembered.take(name, function, args, returns)


class SyncDatabase:
    """`Database` for a worker thread: the same calls, without `await`."""

    __slots__ = ("_database", "_loop")

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._loop = loop

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        return self._wait(self._database.execute(sql, parameters))

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement once per row."""
        self._wait(self._database.execute_many(sql, rows))

    def fetch_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """The first row, or None."""
        return self._wait(self._database.fetch_one(sql, parameters))

    def fetch_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows."""
        return self._wait(self._database.fetch_all(sql, parameters))


class SyncContext(_About):
    """What a `def` handler gets beside its event; as `Context`, with a `db` that blocks."""

    __slots__ = ("_loop",)

    def __init__(self, job: Job, handler: Handler, attempt: int, state: Any, session: Session, call: Call) -> None:
        super().__init__(job, handler, attempt, state, session, call)
        self._loop = asyncio.get_running_loop()

    @property
    def db(self) -> SyncDatabase:
        """See `Context.db`."""
        if self._database is None:
            self._database = SyncDatabase(HandlerDatabase(self._session), self._loop)
        database: SyncDatabase = self._database
        return database

    def step(self, name: str, function: Callable[..., T], *args: Any, returns: type[T] | None = None) -> T:
        """See `Context.step`; `function` is called in this thread and may block."""
        steps, adapter = self._remembered, adapter_of(function, returns)
        known = asyncio.run_coroutine_threadsafe(steps.known(name), self._loop).result()
        if known is None:
            known = dump(name, adapter, function(*args))
            asyncio.run_coroutine_threadsafe(steps.remember(name, known), self._loop).result()
        result: T = adapter.validate_json(known)
        return result
