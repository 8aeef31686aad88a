"""One service instance at work: its parts, put together, started and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import structlog

from choreo.errors import ConfigurationError
from choreo.log.port import Consumer, Log, TopicPartition
from choreo.runtime.clock import Clock, SystemClock
from choreo.runtime.committer import Committer
from choreo.runtime.intake import Intake
from choreo.runtime.invoke import Invoker
from choreo.runtime.lanes import Lanes
from choreo.runtime.ownership import Ownership
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.reader import Reader
from choreo.runtime.recovery import Recovery
from choreo.runtime.settings import Settings
from choreo.runtime.stats import Stats
from choreo.runtime.transactional import TransactionalStore
from choreo.runtime.unit import Committed, UnitOfWork
from choreo.runtime.workers import Workers
from choreo.service import Service
from choreo.store import Store, make_store
from choreo.wire import Codec

_log = structlog.get_logger("choreo.runtime")
_MAX_THREADS = 32
_TICK_DELAY = 1.0
_UNWIND = 5.0
"""Seconds that cancelled tasks get to unwind at the end."""
_MAX_SPAN = 50_000
"""How far a partition may be read past its oldest unfinished record: bounds memory and the holes kept in the store."""


class Instance:
    """One service instance: reads its group's records, runs its handlers, keeps its progress.

    Args:
        log: connected; shared by all instances of a process.
        codec: prepared for the service's events.
    """

    def __init__(
        self, service: Service, *, log: Log, codec: Codec, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.service = service
        self.stats = Stats()
        self._log = log
        self._codec = codec
        self._settings = settings
        self._clock = clock or SystemClock()
        self._store: Store
        if service.transactional:
            self._store = TransactionalStore(log)
        else:
            self._store = make_store(settings.store_of(service.name, service.store))
        self._owned: dict[TopicPartition, Partition] = {}
        self._lanes: Lanes[Job] = Lanes()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exit = AsyncExitStack()
        self._consumer: Consumer

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and begin to read.

        Raises:
            ChoreoError: the store cannot be opened or belongs to another service.
        """
        service = self.service
        if not service.handlers:
            raise ConfigurationError(
                f"service {service.name!r} has no handlers", remedy=f"declare one: @{service.name}.on(SomeEvent)"
            )
        try:
            await self._store.open(service.name, service.tables)
            self._exit.push_async_callback(self._store.close)
            state = None
            if service.lifespan is not None:
                state = await self._exit.enter_async_context(service.lifespan())
            self._assemble(state)
        except BaseException:
            await self._exit.aclose()
            raise
        _log.info("service started", service=service.name, log=self._log.url, handlers=len(service.handlers))

    def _assemble(self, state: Any) -> None:
        """Make the parts and let them run."""
        service, settings = self.service, self._settings
        threads = ThreadPoolExecutor(
            min(_MAX_THREADS, service.concurrency), thread_name_prefix=f"choreo-{service.name}"
        )
        self._exit.callback(threads.shutdown, wait=False, cancel_futures=True)
        self._unit = UnitOfWork(self._store, whole=service.transactional)
        self._recovery = Recovery(service.name, self._unit, self._clock)
        self._publisher = Publisher(self._log, self._clock, self._on_published)
        self._committer = Committer(
            self._unit, self._publisher, offsets_follow=not service.transactional,
            on_committed=self._on_committed, on_failure=self._recovery.fail,
        )  # fmt: skip
        self._ownership = Ownership(
            service=service.name, log=self._log, unit=self._unit, lanes=self._lanes, publisher=self._publisher,
            committer=self._committer, owned=self._owned, clock=self._clock, grace=settings.stop_grace,
            on_dropped=self._on_dropped,
        )  # fmt: skip
        invoker = Invoker(
            codec=self._codec, unit=self._unit, clock=self._clock, stats=self.stats, state=state, threads=threads,
            max_record_bytes=settings.max_record_bytes,
        )  # fmt: skip
        self._workers = Workers(self._lanes, self._unit, invoker, self.stats, on_failure=self._recovery.fail)
        self._intake = Intake(
            service, codec=self._codec, unit=self._unit, lanes=self._lanes, owned=self._owned, clock=self._clock,
            stats=self.stats, max_record_bytes=settings.max_record_bytes,
        )  # fmt: skip
        topics = sorted({event.contract.topic for handler in service.handlers.values() for event in handler.consumes})
        consumer = self._log.consumer(topics, group=service.name, listener=self._ownership)
        self._committer.consumer = self._consumer = consumer
        if isinstance(self._store, TransactionalStore):
            self._store.consumer = consumer
        self._reader = Reader(
            consumer, self._intake, self._workers, load=self._load, limit=settings.max_in_flight, spawn=self._spawn,
            on_failure=self._recovery.fail,
        )  # fmt: skip
        self._recovery.connect(consumer, self._reader, self._ownership, self._intake)
        for _ in range(service.concurrency):
            self._spawn(self._workers.work())
        for part in (self._committer.run(), self._committer.run_offsets(), self._publisher.run()):
            self._spawn(part)
        self._recovering = self._spawn(self._recovery.run())
        self._reader.start()
        self._running = True

    def _load(self) -> int:
        """How many records are read and not done, or done and not yet committed or published."""
        load = self._publisher.backlog + self._unit.jobs
        for partition in self._owned.values():
            if partition.tracker.span > _MAX_SPAN:
                return self._settings.max_in_flight
            load += partition.tracker.open
        return load

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._on_task_end)
        self._tasks.append(task)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def failure(self) -> None:
        """Wait for ever, or until the instance cannot go on.

        Raises:
            ChoreoError: why it cannot go on.
        """
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Finish or give back what is under way, commit, leave the group, publish the rest, close. May be repeated."""
        if not self._running:
            return
        self._running = False
        self._ownership.stopping = True
        self._recovering.cancel()  # it may be waiting for a store that is away, holding what the next steps need
        await self._reader.stop()
        await self._consumer.close()
        try:
            async with asyncio.timeout(self._settings.stop_grace):
                await self._publisher.drained()
            await self._committer.flush(())
        except TimeoutError:
            _log.warning(
                "the log takes no records, the outbox keeps them for the next start", service=self.service.name
            )
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=_UNWIND)
        if self._failure.done():
            self._failure.exception()
        await self._exit.aclose()
        _log.info("service stopped", service=self.service.name)

    # --- what the parts report ------------------------------------------------------------------------------------

    def _on_committed(self, committed: Committed) -> None:
        self._intake.forget(committed.keys)
        self._reader.room_made()

    def _on_dropped(self, jobs: Sequence[Job]) -> None:
        self._intake.forget([task.inbox_key for job in jobs for task in job.tasks])

    def _on_published(self, rows: Sequence[int]) -> None:
        self._unit.tick(rows)
        # The next batch ticks them off; if none comes, they must not wait until consumers have forgotten these ids.
        asyncio.get_running_loop().call_later(_TICK_DELAY, self._unit.changed.set)
        self._reader.room_made()
