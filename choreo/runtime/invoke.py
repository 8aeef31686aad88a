"""Calling handlers: savepoints, and what they return."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from choreo.errors import StoreUnavailableError
from choreo.handler import Handler
from choreo.runtime.breaker import Breakers
from choreo.runtime.context import Context, SyncContext
from choreo.runtime.deadletter import Stage
from choreo.runtime.emit import Emitter
from choreo.runtime.failures import HELD, Failures
from choreo.runtime.partitions import AbandonedError, Job, Task
from choreo.runtime.stats import Stats
from choreo.runtime.threads import Threads
from choreo.runtime.unit import Session, UnitOfWork
from choreo.runtime.watchdog import Watchdog

_ENDS_MORE_THAN_THE_HANDLER = (AbandonedError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Invoker:
    """Runs the handlers of one service instance.

    Args:
        state: what the service's lifespan yielded.
        threads: where `def` handlers run.
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
    ) -> None:
        self._unit = unit
        self._stats = stats
        self._state = state
        self._threads = threads
        self._emitter = emitter
        self._failures = failures
        self._breakers = breakers
        self._calls = watchdog.calls

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
        stage: Stage = "handle"
        try:
            result = await self._call(job, handler, session)
            if session.ended:  # too late: it has returned
                session.reason(None)
            stage = "emit"
            records = self._emitter.records(job, handler, result)
            if job.partition.gone:
                raise AbandonedError
            if self._unit.is_pending(task.inbox_key):  # a copy of this event in another partition was faster
                await session.undo()
                self._stats.duplicates += 1
                return None
            await session.keep()
            self._unit.add(job.partition, job.offset, records, task.inbox_key)
            self._stats.handled += 1
            self._stats.emitted += len(records)
        except StoreUnavailableError:
            raise
        except BaseException as error:  # whatever a handler raises is its retry policy's business
            await session.undo()
            failed = session.reason(error)
            # Cancelled without anybody having cancelled the worker: that was something the handler waited for.
            own = isinstance(failed, asyncio.CancelledError) and not worker.cancelling()
            if failed is None or (isinstance(failed, _ENDS_MORE_THAN_THE_HANDLER) and not own):
                raise
        else:
            if self._breakers.troubled:
                self._breakers.succeeded(job, handler)
            return None
        finally:
            session.leave()
        try:
            return await self._failures.judge(job, task, failed, stage, timed_out=session.ended > 0)
        finally:
            del failed  # its traceback holds this call: a circle that would keep the record for long

    def _call(self, job: Job, handler: Handler, session: Session) -> Awaitable[Any]:
        if not handler.takes_context:
            arguments: tuple[Any, ...] = (job.event,)
        else:
            attempt = 1
            if job.failing is not None and handler.name in job.failing:
                attempt += job.failing[handler.name].calls
            context = Context if handler.is_async else SyncContext
            arguments = (job.event, context(job, handler, attempt, self._state, session))
        if handler.is_async:
            made: Awaitable[Any] = handler.function(*arguments)
            return made
        return self._threads.run(lambda: _in_thread(handler, arguments), handler)


def _in_thread(handler: Handler, arguments: tuple[Any, ...]) -> Any:
    try:
        return handler.function(*arguments)
    except StopIteration as error:  # a future cannot hold one
        raise RuntimeError(f"handler {handler} raised StopIteration") from error
