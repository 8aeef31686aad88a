"""Publishing from outside a handler: scripts, web requests, people."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self, TypeVar

from choreo.errors import ConfigurationError, LogUnavailableError
from choreo.events import Event, Metadata, topic_of
from choreo.log import Log, open_log
from choreo.log.port import NewRecord, Producer
from choreo.observe.sources import Sample, sources
from choreo.observe.tracing import Trace, tracing_of
from choreo.observe.w3c import current_headers
from choreo.runtime.clock import Clock, SystemClock, rfc3339
from choreo.runtime.context import SyncDatabase
from choreo.runtime.emit import check_size
from choreo.runtime.operations import Operations
from choreo.runtime.outbox import Outbox, Transaction
from choreo.runtime.run import ensure_topics
from choreo.runtime.settings import Settings
from choreo.runtime.stats import Stats
from choreo.service import Service
from choreo.store import Database, Store, make_store
from choreo.wire import Codec, open_registry
from choreo.wire.ids import new_event_id

T = TypeVar("T")

_OUTSIDE = "outside writers"
"""Whose a store is that no service owns; no service can have this name."""


class Bus:
    """Publishes events; made by `connect`, used as an async context manager.

    Args:
        codec, clock: instead of one over the settings' registry, and of the machine's.
        open_store: opens an address, as `make_store` does unless given.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        log: Log | None = None,
        stores: Sequence[str | Service] = (),
        *,
        codec: Codec | None = None,
        clock: Clock | None = None,
        open_store: Callable[[str], Store] | None = None,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._source = source
        self._log = log
        self._clock = clock or SystemClock()
        self._given_codec = codec
        self._open_store = open_store or make_store
        self._exit = AsyncExitStack()
        self._outboxes: dict[str, Outbox] = {}
        self._opening = asyncio.Lock()
        self._known: set[type[Event]] = set()
        self._codec: Codec | None = None
        self._stats = Stats()
        self._operations = Operations(source, self._stats)
        self._producer: Producer

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LogUnavailableError: no answer within about 10 seconds.
        """
        try:
            if self._log is None:
                self._log = await self._exit.enter_async_context(open_log(self._settings.log, self._settings.kafka))
            codec = self._given_codec
            if codec is None:
                registry = open_registry(self._settings.registry)
                self._exit.push_async_callback(registry.aclose)
                codec = Codec(registry)
            self._operations.tracing = tracing_of(self._source)
            sources.add(self)
            self._exit.callback(sources.discard, self)
            self._producer = self._log.producer()
            self._exit.push_async_callback(self._producer.close)
            self._codec = codec
            for store in self._stores:
                await self._outbox(store)
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Wait for what is under way, and disconnect."""
        self._codec = None
        self._outboxes.clear()
        await self._exit.aclose()

    async def publish(
        self, event: Event, *, correlation_id: str | None = None, parent: str | None = None, event_id: str | None = None
    ) -> str:
        """Publish an event; it is in the log when this returns.

        Args:
            correlation_id: the saga it goes on with; a new saga unless given.
            parent: the saga that was the cause of the new one.
            event_id: an id of your own (a request's idempotency key, a row's id), so that publishing the same
                thing twice has one effect; a new one unless given.

        Returns:
            The saga's correlation id.

        Raises:
            EncodeError, RecordTooLargeError: this event cannot be published.
            RegistryUnavailableError, LogUnavailableError: not known to be published. Repeating it is safe with
                an `event_id`; without one it may start a second saga.
        """
        await self._prepare({type(event)})
        identity = event_id or new_event_id()
        with self._operations.publishing(event, identity, correlation_id or identity) as trace:
            record = self._record(event, trace, correlation_id, parent, identity)
            await self._producer.append([record])
        return correlation_id or identity

    async def publish_many(self, events: Sequence[Event], *, correlation_id: str | None = None) -> list[str]:
        """Publish many events; all are in the log when this returns.

        Args:
            correlation_id: the saga that all of them go on with; each starts one of its own unless given.

        Returns:
            Their correlation ids, in order.

        Raises:
            EncodeError, RecordTooLargeError: one cannot be published; none is.
            RegistryUnavailableError, LogUnavailableError: some may be published and some not.
        """
        await self._prepare({type(event) for event in events})
        ids = [new_event_id() for _ in events]
        records = [
            self._record(event, self._create(event, identity, correlation_id), correlation_id, None, identity)
            for event, identity in zip(events, ids, strict=True)
        ]
        with self._operations.sending(records):
            await self._producer.append(records)
        return [correlation_id or identity for identity in ids]

    @asynccontextmanager
    async def transaction(self, store: str | Service) -> AsyncIterator[Transaction[Database]]:
        """Write rows and publish events in one transaction of a store: both or neither.

            async with bus.transaction("sqlite:///web.db") as tx:
                await tx.db.execute("INSERT INTO orders VALUES (?, ?)", (order.order_id, order.total))
                tx.publish(order)

        The events go out when the block has ended, in order, and also if the log is away just then or this program dies: the
        next bus that uses the store publishes what was left. An exception inside the block undoes everything. A bus
        runs one transaction of a store at a time, so make slow calls before.

        Args:
            store: the address of a store for programs like this one, or a service, to write into its store.

        Raises:
            StoreOwnedError: the store at this address is a service's; name the service instead.
            EncodeError, RecordTooLargeError, RegistryUnavailableError: nothing was written.
            StoreUnavailableError: nothing was written either, unless the connection broke while it was committed.
            LogUnavailableError: nothing was written, because too many events wait for the log already.
        """
        outbox = await self._outbox(store)
        events: list[tuple[Event, str | None, str | None, str]] = []

        def publish(
            event: Event, *, correlation_id: str | None = None, parent: str | None = None, event_id: str | None = None
        ) -> str:
            identity = event_id or new_event_id()
            events.append((event, correlation_id, parent, identity))
            return correlation_id or identity

        async def records() -> list[NewRecord]:
            await self._prepare({type(event) for event, *_ in events}, later=True)
            return [
                self._record(event, self._create(event, identity, saga), saga, parent, identity)
                for event, saga, parent, identity in events
            ]

        async with outbox.transaction(records) as opened:
            yield Transaction(opened.db, publish)

    async def _outbox(self, store: str | Service) -> Outbox:
        log, _ = self._check()
        owner = store if isinstance(store, Service) else None
        if owner is not None and owner.transactional:
            raise ConfigurationError(f"service {owner.name!r} is transactional and has no store")
        address = self._settings.store_of(owner.name, owner.store) if owner is not None else str(store)
        async with self._opening:
            if address not in self._outboxes:
                opened = self._open_store(address)
                await (opened.open(owner.name, owner.tables) if owner is not None else opened.open(_OUTSIDE))
                outbox = Outbox(opened, log, self._clock, self._settings.stop_grace, self._operations)
                self._exit.push_async_callback(outbox.close)
                self._outboxes[address] = outbox
        return self._outboxes[address]

    def _check(self) -> tuple[Log, Codec]:
        if self._codec is None or self._log is None:
            raise ConfigurationError(
                "this bus is not connected", remedy="use it inside `async with choreo.connect() as bus`"
            )
        return self._log, self._codec

    async def _prepare(self, classes: set[type[Event]], *, later: bool = False) -> None:
        """Make sure that events of these classes can be written; `later`: whether the log is there or not."""
        log, codec = self._check()
        if fresh := classes - self._known:
            topics = {topic for event in fresh for topic in event.contract.topics}
            if self._settings.creates_topics or not later:
                with suppress(LogUnavailableError) if later else nullcontext():
                    await ensure_topics(log, sorted(topics), create=self._settings.creates_topics)
            await codec.prepare(writes=fresh, reads=())
            self._known |= fresh

    def _create(self, event: Event, event_id: str, correlation_id: str | None) -> Trace | None:
        """The span of one of several events; None if there are no spans."""
        if self._operations.tracing is None:
            return None
        trace = self._operations.tracing.create(topic_of(event), event_id, correlation_id or event_id)
        trace.end()
        return trace

    def _record(
        self, event: Event, trace: Trace | None, correlation_id: str | None, parent: str | None, event_id: str
    ) -> NewRecord:
        assert self._codec is not None  # noqa: S101 - `_prepare` has checked it
        now_ms = self._clock.now_ms()
        carried = (trace.traceparent, trace.tracestate) if trace is not None else current_headers()
        metadata = Metadata(
            *(event_id, event.contract.type_name, self._source, rfc3339(now_ms), correlation_id or event_id, None),
            *carried,
            parent_id=parent,
        )
        record = self._codec.encode(event, metadata, timestamp=now_ms)
        check_size(record, self._settings.max_record_bytes)
        return record

    # --- metrics ----------------------------------------------------------------------------------------------------

    def samples(self) -> Iterator[Sample]:
        """See `Source.samples`."""
        return self._stats.client_samples(self._source)

    async def refresh(self) -> None:
        """See `Source.refresh`: all is at hand."""


def connect(
    settings: Settings | None = None,
    *,
    source: str | None = None,
    log: Log | None = None,
    stores: Sequence[str | Service] = (),
) -> Bus:
    """A bus to publish with: `async with choreo.connect() as bus: saga = await bus.publish(event)`.

    Args:
        settings: where the log and the schemas are; from the environment unless given.
        source: who publishes (`ce_source`); the program's name unless given.
        log: a connected log to use instead of opening `settings.log`.
        stores: those whose left events are to be published from now on; others are once `Bus.transaction` names them.
    """
    return Bus(settings or Settings(), source or PurePath(sys.argv[0] or "python").stem, log, stores)


class SyncBus:
    """A `Bus` for code without an event loop: the same calls, blocking. Safe to use from several threads."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="choreo-bus", daemon=True)

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def __enter__(self) -> Self:
        """See `Bus.__aenter__`."""
        self._thread.start()
        try:
            self._wait(self._bus.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Bus.__aexit__`."""
        try:
            self._wait(self._bus.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def publish(
        self, event: Event, *, correlation_id: str | None = None, parent: str | None = None, event_id: str | None = None
    ) -> str:
        """See `Bus.publish`."""
        return self._wait(self._bus.publish(event, correlation_id=correlation_id, parent=parent, event_id=event_id))

    def publish_many(self, events: Sequence[Event], *, correlation_id: str | None = None) -> list[str]:
        """See `Bus.publish_many`."""
        return self._wait(self._bus.publish_many(events, correlation_id=correlation_id))

    @contextmanager
    def transaction(self, store: str | Service) -> Iterator[Transaction[SyncDatabase]]:
        """See `Bus.transaction`."""
        transaction = self._bus.transaction(store)
        tx = self._wait(transaction.__aenter__())
        try:
            yield Transaction(SyncDatabase(tx.db, self._loop), tx.publish)
        except BaseException as error:
            self._wait(transaction.__aexit__(type(error), error, error.__traceback__))
            raise
        self._wait(transaction.__aexit__(None, None, None))


def connect_sync(settings: Settings | None = None, *, source: str | None = None) -> SyncBus:
    """A blocking bus: `with choreo.connect_sync() as bus: saga = bus.publish(event)`."""
    return SyncBus(connect(settings, source=source))
