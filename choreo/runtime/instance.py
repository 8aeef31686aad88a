"""One service instance at work: its parts, put together, started and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

from choreo.choreography import dead_letter_topic, retry_topic
from choreo.durations import seconds
from choreo.errors import ChoreoError, ConfigurationError
from choreo.log.port import Consumer, Log, TopicPartition
from choreo.observe.tracing import tracing_of
from choreo.runtime import transactional
from choreo.runtime.backpressure import Backpressure
from choreo.runtime.batches.emit import BatchEmitter
from choreo.runtime.batches.run import BatchInvoker
from choreo.runtime.batches.waiting import lanes_of
from choreo.runtime.breaker import Breakers
from choreo.runtime.clock import Clock, SystemClock
from choreo.runtime.committer import Committer
from choreo.runtime.decoding import Decoder
from choreo.runtime.emit import Emitter
from choreo.runtime.failures import Failures
from choreo.runtime.housekeeping import clean_store, publish_left
from choreo.runtime.intake import Intake
from choreo.runtime.invoke import Invoker
from choreo.runtime.numbers import Numbers
from choreo.runtime.operations import Operations
from choreo.runtime.ownership import Ownership
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.reader import Reader
from choreo.runtime.recovery import Recovery
from choreo.runtime.returns import Returns
from choreo.runtime.sagas.deadlines import refuse_forgotten
from choreo.runtime.sagas.turns import Turns, is_needed
from choreo.runtime.settings import Settings
from choreo.runtime.stats import Stats
from choreo.runtime.threads import Threads
from choreo.runtime.timers import Timers, has_deadlines
from choreo.runtime.unit import Committed, UnitOfWork
from choreo.runtime.watchdog import Watchdog
from choreo.runtime.workers import Workers
from choreo.service import Service
from choreo.store import OutboxRow, Store, make_store
from choreo.wire import Codec

_log = structlog.get_logger("choreo.runtime")
_MAX_THREADS = 32
_TICK_DELAY = 1.0
_ANSWER = 2.0
"""Seconds that log and store have to show that they are there."""
_LAST_WORDS = 1.0
"""Seconds that publishing gets at the end of a stop, though handlers have used up the grace."""
_UNWIND = 5.0
"""Seconds that cancelled tasks get to unwind at the end."""
_MAX_REACH = 50_000
"""How far a partition may be read past its oldest unfinished record: bounds memory and the holes kept in the store."""


class Instance:
    """One service instance: reads its group's records, runs its handlers, keeps its progress.

    Args:
        log: connected; shared by all instances of a process.
        codec: prepared for the service's events.
        open_store: opens an address, as `make_store` does unless given.
    """

    def __init__(
        self,
        service: Service,
        *,
        log: Log,
        codec: Codec,
        settings: Settings,
        clock: Clock | None = None,
        open_store: Callable[[str], Store] | None = None,
    ) -> None:
        self.service = service
        self.stats = Stats()
        self._operations = Operations(service.name, self.stats)
        self._log = log
        self._codec = codec
        self._settings = settings
        self._clock = clock or SystemClock()
        self._store: Store
        if service.transactional:
            self._store = transactional.TransactionalStore(log, self._operations)
        else:
            self._store = (open_store or make_store)(settings.store_of(service.name, service.store))
        self._owned: dict[TopicPartition, Partition] = {}
        self._batches, self._lanes = lanes_of(service, self._clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._some_published = asyncio.Event()
        self._tick: asyncio.Task[None] | None = None
        self._timers: Timers | None = None
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
        refuse_forgotten(service, self._settings.saga_keep)
        try:
            await self._store.open(service.name, service.tables)
            self._exit.push_async_callback(self._store.close)
            state = None
            if service.lifespan is not None:
                state = await self._exit.enter_async_context(service.lifespan())
            self._assemble(state)
        except BaseException:
            await self._end_tasks()  # some may run already, with what is closed next
            await self._exit.aclose()
            raise
        _log.info("service started", service=service.name, log=self._log.url, handlers=len(service.handlers))

    def _assemble(self, state: Any) -> None:
        """Make the parts and let them run."""
        service, settings = self.service, self._settings
        self._unit = UnitOfWork(self._store, whole=service.transactional)
        self._recovery = Recovery(service.name, self._unit, self._clock, self.stats)
        self._operations.tracing = self._tracing = tracing_of(service.name)
        self._publisher = Publisher(
            self._log, self._clock, self._on_published, self._operations,
            (retry_topic(service.name), dead_letter_topic(service.name)),
        )  # fmt: skip
        self._committer = Committer(
            self._unit, self._publisher, self._clock, self._owned, operations=self._operations,
            offsets_follow=not service.transactional,
            on_committed=self._on_committed, on_failure=self._recovery.fail,
        )  # fmt: skip
        self._ownership = Ownership(
            service=service.name, stats=self.stats, log=self._log, unit=self._unit, drop=(self._batches or self._lanes).drop,
            publisher=self._publisher, committer=self._committer, owned=self._owned, clock=self._clock,
            grace=settings.stop_grace, max_in_flight=settings.max_in_flight, on_dropped=self._on_dropped,
            has_timers=has_deadlines(service),
            on_taken=lambda: self._timers.look() if self._timers else None, spawn=self._spawn,
        )  # fmt: skip
        decoder = Decoder(
            service, codec=self._codec, unit=self._unit, clock=self._clock, stats=self.stats,
            max_record_bytes=settings.max_record_bytes,
        )  # fmt: skip
        turns = None
        if is_needed(service):
            turns = Turns(service, unit=self._unit, codec=self._codec, clock=self._clock)
        self._workers = self._make_workers(state, decoder, turns)
        if has_deadlines(service):
            self._timers = Timers(
                service, ends=lambda: self._consumer.ends if self._reader.is_at_rest else {}, log=self._log, unit=self._unit,
                decoder=decoder, lanes=self._lanes, owned=self._owned, clock=self._clock, wake=self._workers.wake,
            )  # fmt: skip
        self._intake = Intake(
            decoder, unit=self._unit, put=(self._batches or self._lanes).add, owned=self._owned, stats=self.stats,
            settled=self._settled, has_inbox=not service.transactional, turns=turns,
        )  # fmt: skip
        self._read_with(self._intake)
        self._let_run()

    def _read_with(self, intake: Intake) -> None:
        """Make what brings records in, and connect it with the rest."""
        service = self.service
        topics = set(service.topics)
        if not service.transactional:
            topics.add(retry_topic(service.name))
        self._pressure = pressure = Backpressure(
            self._owned, self._lanes, self._unit, self._publisher, most_in_flight=self._settings.max_in_flight,
            most_reach=transactional.MAX_REACH if service.transactional else _MAX_REACH,
        )  # fmt: skip
        consumer = self._log.consumer(
            sorted(topics), group=service.name, listener=self._ownership, ends=self._timers is not None
        )
        self._committer.consumer = self._consumer = pressure.consumer = consumer
        if isinstance(self._store, transactional.TransactionalStore):
            self._store.consumer = consumer
        self._reader = Reader(
            consumer, intake, self._workers, pressure=pressure, operations=self._operations, spawn=self._spawn,
            on_failure=self._recovery.fail,
        )  # fmt: skip
        self._recovery.connect(consumer, self._reader, self._ownership, intake)

    def _let_run(self) -> None:
        for part in (self._committer.run(), self._watchdog.run()):
            self._spawn(part)
        if self._batches is not None:
            self._pressure.relieve = self._batches.relieve
            self._spawn(self._batches.run())
        if not self.service.transactional:
            self._serve_store()
        self._recovering = [self._spawn(self._recovery.run()), self._spawn(self._recovery.settle_doubts())]
        self._numbers = Numbers(
            self.service.name, self.stats, owned=self._owned, lanes=self._lanes, batches=self._batches, unit=self._unit,
            publisher=self._publisher, breakers=self._breakers, timers=self._timers, clock=self._clock,
            threads_given_up=lambda: self.given_up,
        )  # fmt: skip
        self._numbers.show()
        self._exit.callback(self._numbers.hide)
        self._reader.start()
        self._running = True

    def _serve_store(self) -> None:
        """Let run what follows the store's transactions, and what keeps it clean."""
        name, unit, clock = self.service.name, self._unit, self._clock

        async def left(before_ms: int) -> list[OutboxRow]:
            return await unit.apart(lambda: unit.store.abandoned(before_ms))

        for part in (
            self._committer.run_offsets(),
            self._publisher.run(),
            publish_left(name, left, self._publisher, clock),
        ):
            self._spawn(part)
        keeps = seconds(self._settings.inbox_keep), seconds(self._settings.saga_keep)
        self._spawn(clean_store(name, unit, clock, *keeps, lambda: self._lanes.has_ready))
        if self._timers is not None:
            self._spawn(self._timers.run())
            self._spawn(self._timers.follow_ends())

    def _make_workers(self, state: Any, decoder: Decoder, turns: Turns | None) -> Workers:
        service, unit, clock = self.service, self._unit, self._clock
        unit.flush = self._committer.commit
        self._threads = threads = Threads(service.name, min(_MAX_THREADS, service.concurrency))
        self._exit.callback(threads.close)
        self._watchdog = Watchdog(clock, min(handler.timeout for handler in service.handlers.values()))
        breakers = self._breakers = Breakers(self._lanes, clock, self._spawn, self._on_breaker_opened)
        emitter = Emitter(self._codec, clock, self._settings.max_record_bytes, self._tracing)
        failures = Failures(
            unit=unit, clock=clock, stats=self.stats, emitter=emitter, breakers=breakers,
            transactional=service.transactional,
        )  # fmt: skip
        make_invoker: Callable[..., Invoker] = Invoker
        if self._batches is not None:
            batch_emitter = BatchEmitter(self._codec, clock, self._settings.max_record_bytes)
            make_invoker = partial(BatchInvoker, batches=self._batches, batch_emitter=batch_emitter, clock=clock)
        invoker = make_invoker(
            unit=unit, stats=self.stats, state=state, threads=threads, emitter=emitter, failures=failures,
            breakers=breakers, watchdog=self._watchdog, turns=turns, tracing=self._tracing,
        )  # fmt: skip
        returns = Returns(
            service=service.name, unit=unit, decoder=decoder, invoker=invoker, clock=clock, published=self._published
        )
        workers = Workers(
            self._lanes, unit, invoker, returns, breakers, most=service.concurrency, spawn=self._spawn, clock=clock,
            stats=self.stats, on_failure=self._recovery.fail, on_deferred=lambda: self._reader.room_made(),  # noqa: PLW0108 - it is made later
        )  # fmt: skip
        breakers.wake = workers.wake
        if self._batches is not None:
            self._batches.wake = workers.wake
        self._exit.callback(workers.stop)
        return workers

    async def _settled(self) -> None:
        """Wait until no job runs or could run, and what is done is committed."""
        if self._batches is not None:
            self._batches.release_all()
        await self._workers.quiet()
        await self._committer.commit()

    async def _published(self) -> None:
        """Wait until everything that stands in the outbox now, also what earlier owners left there, is in the log."""
        rows = self._publisher.rows
        while rows & self._publisher.rows:
            await self._some_published.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._on_task_end)
        self._tasks.append(task)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def failure(self) -> None:
        """Wait for ever, or until the instance cannot go on.

        Raises:
            ChoreoError: why it cannot go on.
        """
        await asyncio.shield(self._failure)

    @property
    def under_way(self) -> int:
        """How many records its handlers are at work on."""
        return sum(partition.running for partition in self._owned.values())

    @property
    def given_up(self) -> int:
        """How many threads of handlers go on though they are given up."""
        return self._threads.hanging

    @property
    def failed(self) -> BaseException | None:
        """Why it cannot go on, if so."""
        return self._failure.exception() if self._failure.done() else None

    async def obstacles(self) -> list[str]:
        """What keeps it from its work just now, found by asking group, log and store."""
        found = [str(self.failed)] if self.failed else []
        if not self._consumer.joined:
            found.append("the group has not taken it in")
        for what, question in (("log", self._log.topics), ("store", self._look_at_store)):
            try:
                await asyncio.wait_for(question(), _ANSWER)
            except TimeoutError:
                found.append(f"the {what} gives no answer within {_ANSWER:.0f} s")
            except ChoreoError as error:
                found.append(str(error))
        return found

    async def _look_at_store(self) -> None:
        await self._store.behind(bytes(16), 0)

    async def stop(self) -> None:
        """Finish or give back what is under way, commit, leave the group, publish the rest, close. May be repeated."""
        if not self._running:
            return
        self._running = False
        end = asyncio.get_running_loop().time() + self._settings.stop_grace
        self._ownership.stopping = True
        for task in self._recovering:  # it may be waiting for a store that is away, holding what the next steps need
            task.cancel()
        await self._reader.stop()
        await self._consumer.close()
        try:
            async with asyncio.timeout_at(max(end, asyncio.get_running_loop().time() + _LAST_WORDS)):
                await self._publisher.drained()
            await self._committer.flush(())
        except TimeoutError:
            _log.warning(
                "the log takes no records, the outbox keeps them for the next start", service=self.service.name
            )
        await self._end_tasks()
        await self._exit.aclose()
        _log.info("service stopped", service=self.service.name)

    async def kill(self) -> None:
        """End at once: nothing is finished, committed, published or given back. For tests, which have cut off log and store."""
        self._running = False
        await self._end_tasks()
        await self._consumer.close()
        await self._exit.aclose()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_UNWIND)
        if self._failure.done():
            self._failure.exception()  # whoever wanted to know has been told

    # --- what the parts report ------------------------------------------------------------------------------------

    def _on_committed(self, committed: Committed) -> None:
        self._intake.forget(committed.keys)
        if committed.due_ms is not None and self._timers is not None:
            self._timers.set(committed.due_ms)
        self._reader.room_made()

    def _on_dropped(self, jobs: Sequence[Job]) -> None:
        self._intake.forget([task.inbox_key for job in jobs for task in job.tasks])
        for job in jobs:
            job.abandon_traces()

    def _on_breaker_opened(self, handler: str) -> None:
        self.stats.opened[handler] += 1

    def _on_published(self, rows: Sequence[int]) -> None:
        self._unit.tick(rows)
        self._some_published.set()
        self._some_published.clear()
        # The next batch ticks them off; if none comes, they must not wait until consumers have forgotten these ids.
        if self._tick is None:
            self._tick = self._spawn(self._tick_off())
        self._reader.room_made()

    async def _tick_off(self) -> None:
        await self._clock.pause(_TICK_DELAY)
        self._tick = None
        self._unit.changed.set()
