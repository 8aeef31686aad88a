"""Calling handlers: savepoints, and what they return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from choreo.errors import OvertakenError, StoreUnavailableError
from choreo.events import Event
from choreo.handler import Compensation, Handler
from choreo.log.port import NewRecord
from choreo.observe.w3c import unrecorded
from choreo.runtime.breaker import Breakers
from choreo.runtime.context import Context, SyncContext
from choreo.runtime.emit import Emitter, emitted
from choreo.runtime.failures import HELD, Failures
from choreo.runtime.partitions import AbandonedError, Job, Task
from choreo.runtime.sagas.turn import Call
from choreo.runtime.sagas.turns import Turns
from choreo.runtime.session import Session
from choreo.runtime.stats import Stats
from choreo.runtime.threads import Threads
from choreo.runtime.unit import UnitOfWork
from choreo.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from choreo.observe.tracing import Tracing

ENDS_MORE_THAN_THE_HANDLER = (AbandonedError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Invoker:
    """Runs the handlers of one service instance.

    Args:
        state: what the service's lifespan yielded.
        threads: where `def` handlers run.
        turns: decides what is called; None if each handler is called with each event.
        tracing: None if there are no spans.
    """

    def __init__(
        self,
        *,
        unit: UnitOfWork,
        stats: Stats,
        state: Any,
        threads: Threads,
        emitter: Emitter,
        failures: Failures,
        breakers: Breakers,
        watchdog: Watchdog,
        turns: Turns | None,
        tracing: Tracing | None = None,
    ) -> None:
        self._unit = unit
        self._stats = stats
        self._state = state
        self._threads = threads
        self._emitter = emitter
        self._failures = failures
        self._breakers = breakers
        self._calls = watchdog.calls
        self._turns = turns
        self._tracing = tracing

    def enter_worker(self, worker: asyncio.Task[Any]) -> None:
        """A worker begins; called in its task."""
        if self._tracing is not None:
            at_work = self._calls.get
            self._tracing.enter_worker(lambda: call.job.metadata if (call := at_work(worker)) is not None else None)

    async def run(self, job: Job, task: Task, worker: asyncio.Task[Any]) -> float | None:
        """Call one handler for one event. `worker` is the task that calls.

        Returns None if it is done with it (there is an effect, or the record is away), else the seconds until the next
        attempt.

        Raises:
            AbandonedError: the partition is going; nothing was done.
            StoreUnavailableError: the store failed; the transaction must be given up.
        """
        handler = task.handler
        if self._breakers.troubled and not self._breakers.may_run(job, handler):
            return HELD
        session = Session(self._unit, job, handler, worker)
        self._calls[worker] = session
        try:
            wait = await self._attempt(job, task, session)
        except (StoreUnavailableError, OvertakenError):
            raise
        except BaseException as error:  # whatever a handler raises is its retry policy's business
            if session.kept:
                raise
            await session.undo()
            failed = session.reason(error)
            # Cancelled without anybody having cancelled the worker: that was something the handler waited for.
            own = isinstance(failed, asyncio.CancelledError) and not worker.cancelling()
            if failed is None or (isinstance(failed, ENDS_MORE_THAN_THE_HANDLER) and not own):
                raise
            self._stats.called(
                handler.name, job.record.topic, perf_counter() - session.begun, type(failed).__qualname__
            )
        else:
            if self._breakers.troubled and wait is None:
                self._breakers.succeeded(job, handler)
            if wait is None and (trace := job.trace(handler)) is not None:
                trace.error = None
                self._end_trace(job, handler)
            return wait
        finally:
            session.leave()
            del self._calls[worker]
        try:
            return await self._failed(job, task, failed, session)
        finally:
            del failed  # its traceback holds this call: a circle that would keep the record for long

    async def _failed(self, job: Job, task: Task, failed: BaseException, session: Session) -> float | None:
        handler = task.handler
        if (trace := job.trace(handler)) is not None:
            trace.failed(
                failed, 1 + (job.failing[handler.name].calls if job.failing and handler.name in job.failing else 0)
            )
        wait = await self._failures.judge(job, task, failed, session)
        if wait is None and trace is not None:
            trace.emits = True  # a record that is away, or a failure
            self._end_trace(job, handler)
        return wait

    def _enter_trace(self, tracing: Tracing, job: Job, handler: Handler, session: Session, call: Call) -> None:
        """Be inside the record's span from here on: one that goes on from an earlier attempt, or a new one."""
        trace = job.trace(handler)
        if trace is None:
            job.traces = job.traces or {}
            trace = job.traces[handler.name] = tracing.process(handler.name, job.record, job.metadata, call.others())
        session.context = trace.enter()

    def _end_trace(self, job: Job, handler: Handler) -> None:
        trace = job.traces.pop(handler.name, None) if job.traces is not None else None
        if trace is not None:
            self._unit.traced(trace.end(), emits=trace.emits)

    async def _attempt(self, job: Job, task: Task, session: Session) -> float | None:
        """Take a turn with an event; None if it has its effect, or 0 if it is to be taken again."""
        handler = task.handler
        if self._turns is not None:
            session.turn = self._turns.step(job, task) or await self._turns.begin(job, task)
        turn = session.turn
        made = await self._make(job, handler, session, turn.calls if turn else (Call((job.event,)),))
        if job.partition.gone:
            raise AbandonedError
        if self._unit.is_pending(task.inbox_key):  # a copy of this event in another partition was faster
            await session.undo()
            self._stats.duplicates += 1
            return None
        if turn is not None and not turn.holds():  # its saga has gone on meanwhile
            await session.undo()
            return 0.0
        await session.keep()
        if session.entered and turn is not None and not turn.holds():
            raise OvertakenError(f"the saga of {handler} went on while its writes were kept")
        self._take_effect(job, task, session, made)
        if turn is not None and turn.more:
            if job.failing is not None:
                job.failing.pop(handler.name, None)  # they were calls of this turn
            return 0.0
        return None

    async def _make(
        self, job: Job, handler: Handler, session: Session, calls: Sequence[Call]
    ) -> list[tuple[Event, NewRecord]]:
        """Make the calls of a turn; gives what they emit."""
        made: list[tuple[Event, NewRecord]] = []
        for call in calls:
            session.stage = "handle"
            if self._tracing is not None and session.context is None and not unrecorded(job.metadata.traceparent):
                self._enter_trace(self._tracing, job, handler, session, call)
            session.begun = begun = perf_counter()
            result = await self._call(job, handler, session, call)
            self._stats.called(handler.name, job.record.topic, perf_counter() - begun)
            if session.ended:  # too late: it has returned
                session.reason(None)
            session.stage = "emit"
            events = emitted(handler, result)
            records = self._emitter.records(job, handler, events, call.scope, call.compensates)
            made += zip(events, records, strict=True)
        if session.started:
            records = self._emitter.starts(job, session.started, handler)
            made += zip((event for _, event in session.started), records, strict=True)
        return made

    def _take_effect(self, job: Job, task: Task, session: Session, made: list[tuple[Event, NewRecord]]) -> None:
        turn = session.turn
        key = None if turn is not None and turn.more else task.inbox_key or None
        if not self._unit.add(job.partition, job.offset, [record for _, record in made], key):
            raise AbandonedError
        if turn is not None:
            turn.conclude(made)
            if turn.calls and isinstance(task.handler.rule, Compensation):
                self._stats.undone[task.handler.name] += 1
        if session.remembered is not None:
            self._unit.forget_notes(session.remembered)
        self._stats.handled += turn is None or bool(turn.calls)
        self._stats.emitted += len(made)

    def _call(self, job: Job, handler: Handler, session: Session, call: Call) -> Awaitable[Any]:
        arguments = call.arguments
        if handler.takes_context:
            attempt = 1
            if job.failing is not None and handler.name in job.failing:
                attempt += job.failing[handler.name].calls
            context = Context if handler.is_async else SyncContext
            arguments = (*arguments, context(job, handler, attempt, self._state, session, call))
        return self._apply(handler, arguments)

    def _apply(self, handler: Handler, arguments: tuple[Any, ...]) -> Awaitable[Any]:
        if handler.is_async:
            made: Awaitable[Any] = handler.function(*arguments)
            return made
        return self._threads.run(lambda: _in_thread(handler, arguments), handler.name)


def _in_thread(handler: Handler, arguments: tuple[Any, ...]) -> Any:
    try:
        return handler.function(*arguments)
    except StopIteration as error:  # a future cannot hold one
        raise RuntimeError(f"handler {handler} raised StopIteration") from error
