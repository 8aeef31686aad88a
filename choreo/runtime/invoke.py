"""Calling handlers: attempts, savepoints, what they return, and what becomes of a failure."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from choreo.errors import ChoreoError, RecordTooLargeError, StoreUnavailableError, UndeclaredEmissionError
from choreo.events import Event, Metadata
from choreo.log.port import NewRecord
from choreo.runtime.clock import Clock, rfc3339
from choreo.runtime.context import Context, HandlerDatabase, SyncContext, SyncDatabase, identity
from choreo.runtime.deadletter import Failed, Stage, dead_letter, said, size_of
from choreo.runtime.partitions import AbandonedError, Job, Task
from choreo.runtime.retry import Again, decide, kind_of
from choreo.runtime.stats import Stats
from choreo.runtime.unit import Session, UnitOfWork
from choreo.service import Handler
from choreo.wire import Codec
from choreo.wire.ids import derive_event_id

_log = structlog.get_logger("choreo.runtime")
_ENDS_MORE_THAN_THE_HANDLER = (AbandonedError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


class Invoker:
    """Runs the handlers of one service instance.

    Args:
        state: what the service's lifespan yielded.
        threads: where `def` handlers run.
        max_record_bytes: the largest record a handler may emit.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        unit: UnitOfWork,
        clock: Clock,
        stats: Stats,
        state: Any,
        threads: ThreadPoolExecutor,
        max_record_bytes: int,
    ) -> None:
        self._codec = codec
        self._unit = unit
        self._clock = clock
        self._stats = stats
        self._state = state
        self._threads = threads
        self._max_bytes = max_record_bytes

    async def run(self, job: Job, task: Task, worker: asyncio.Task[Any]) -> None:
        """Take one handler to its end for one event: an effect, or a dead letter. `worker` is the task that calls.

        Raises:
            AbandonedError: the partition is going; nothing was done.
            StoreUnavailableError: the store failed; the transaction must be given up.
        """
        attempt = 1
        while True:
            error, stage = await self._attempt(job, task, attempt, worker)
            if error is None:
                return
            delay = None
            if stage == "handle":
                retry, now_ms = task.handler.retry, self._clock.now_ms()
                decision = decide(
                    retry, error, kind_of(retry, error), attempt=attempt, first_ms=now_ms, now_ms=now_ms,
                    chance=self._clock.random(), far="lane",
                )  # fmt: skip
                delay = decision.delay if isinstance(decision, Again) else None
            if delay is None:
                self._give_up(job, task.handler, error, stage, attempt)
                return
            self._stats.retries += 1
            _log.warning(
                "handler failed, trying again",
                **identity(job, task.handler), attempt=attempt, delay=round(delay, 3),
                error=f"{type(error).__name__}: {said(error)}",
            )  # fmt: skip
            await self._wait(job, delay)
            attempt += 1

    async def _attempt(
        self, job: Job, task: Task, attempt: int, worker: asyncio.Task[Any]
    ) -> tuple[BaseException | None, Stage]:
        """One call. Returns what went wrong and where, or None."""
        session = Session(self._unit, job, worker)
        stage: Stage = "handle"
        try:
            result = await self._call(job, task.handler, attempt, session)
            stage = "emit"
            records = self._records(job, task.handler, result)
            if job.partition.gone:
                raise AbandonedError
            if self._unit.is_pending(task.inbox_key):  # a copy of this event in another partition was faster
                await session.undo()
                self._stats.duplicates += 1
                return None, stage
            await session.keep()
            self._unit.add(job.partition, job.record.offset, records, task.inbox_key)
            self._stats.handled += 1
            self._stats.emitted += len(records)
        except StoreUnavailableError:
            raise
        except BaseException as error:  # whatever a handler raises is its retry policy's business
            await session.undo()
            reason = session.reason(error)
            # Cancelled without anybody having cancelled the worker: that was something the handler waited for.
            own = isinstance(reason, asyncio.CancelledError) and not worker.cancelling()
            if isinstance(reason, _ENDS_MORE_THAN_THE_HANDLER) and not own:
                raise
            return reason, stage
        else:
            return None, stage
        finally:
            session.leave()

    async def _call(self, job: Job, handler: Handler, attempt: int, session: Session) -> Any:
        if not handler.takes_context:
            arguments: tuple[Any, ...] = (job.event,)
        else:
            database = HandlerDatabase(session, self._unit.store.db)
            if handler.is_async:
                arguments = (job.event, Context(job, handler, attempt, self._state, database))
            else:
                sync_database = SyncDatabase(database, asyncio.get_running_loop())
                arguments = (job.event, SyncContext(job, handler, attempt, self._state, sync_database))
        if handler.is_async:
            return await handler.function(*arguments)
        call = functools.partial(contextvars.copy_context().run, _in_thread, handler, arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # --- what it returned -----------------------------------------------------------------------------------------

    def _records(self, job: Job, handler: Handler, result: Any) -> list[NewRecord]:
        events = _emitted(handler, result)
        if not events:
            return []
        now_ms = self._clock.now_ms()
        time = rfc3339(now_ms)
        return [self._record(job, handler, event, ordinal, time, now_ms) for ordinal, event in enumerate(events)]

    def _record(self, job: Job, handler: Handler, event: Event, ordinal: int, time: str, now_ms: int) -> NewRecord:
        cause = job.metadata
        metadata = Metadata(
            derive_event_id(cause.event_id, handler.service, handler.name, ordinal, time_ms=job.record.timestamp),
            event.contract.type_name,
            handler.service,
            time,
            cause.correlation_id,
            cause.event_id,
            cause.traceparent,
            cause.tracestate,
        )
        record = self._codec.encode(event, metadata, timestamp=now_ms)
        check_size(record, self._max_bytes)
        return record

    # --- failures -------------------------------------------------------------------------------------------------

    def _give_up(self, job: Job, handler: Handler, error: BaseException, stage: Stage, attempts: int) -> None:
        if job.partition.gone:
            raise AbandonedError
        failed = Failed(
            service=handler.service,
            handler=handler.name,
            stage=stage,
            kind="exhausted",
            error=error,
            attempts=attempts,
            first_failed_ms=self._clock.now_ms(),
            now_ms=self._clock.now_ms(),
            subject=f"{job.metadata.source}\0{job.metadata.event_id}",
        )
        self._unit.add(job.partition, job.record.offset, [dead_letter(job.record, failed, self._max_bytes)])
        self._stats.dead_letters += 1
        _log.error(
            "handler gave up, record goes to the dead letters",
            **identity(job, handler), stage=stage, attempts=attempts,
            error=f"{type(error).__name__}: {said(error)}",
            exc_info=error if not isinstance(error, ChoreoError) else None,
        )  # fmt: skip

    async def _wait(self, job: Job, delay: float) -> None:
        """Wait before the next attempt, but not longer than the partition stays.

        Raises:
            AbandonedError: it is leaving; the record is handled again by the next owner.
        """
        leaving = asyncio.ensure_future(job.partition.leaving.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(delay))
        try:
            await asyncio.wait({leaving, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sleeping.cancel()
        if job.partition.leaving.is_set():
            raise AbandonedError


def _in_thread(handler: Handler, arguments: tuple[Any, ...]) -> Any:
    try:
        return handler.function(*arguments)
    except StopIteration as error:  # a future cannot hold one
        raise RuntimeError(f"handler {handler} raised StopIteration") from error


def _emitted(handler: Handler, result: Any) -> list[Event]:
    """The events a handler returned, checked against its declaration.

    Raises:
        UndeclaredEmissionError: it returned something its annotation does not name.
    """
    emits = handler.emits
    if result is None:
        if not emits.nothing:
            raise _undeclared(handler, "nothing")
        return []
    if isinstance(result, Event):
        if not emits.one or type(result) not in emits.classes:
            raise _undeclared(handler, f"a {type(result).__name__}")
        return [result]
    if isinstance(result, (list, tuple)) and emits.many:
        for event in result:
            if type(event) not in emits.classes:
                raise _undeclared(handler, f"a {type(event).__name__} among its events")
        return list(result)
    raise _undeclared(handler, f"a {type(result).__name__}")


def _undeclared(handler: Handler, what: str) -> UndeclaredEmissionError:
    declared = [cls.__name__ for cls in handler.emits.classes] + (["None"] if handler.emits.nothing else [])
    return UndeclaredEmissionError(
        f"handler {handler} returned {what}, but declares {' | '.join(declared)}",
        remedy="name it in the return annotation, or return only what is declared",
    )


def check_size(record: NewRecord, max_bytes: int) -> None:
    """Refuse a record that the log would refuse, before it stands in an outbox.

    Raises:
        RecordTooLargeError: key, value and headers together are larger than the limit.
    """
    size = size_of(record.key, record.value, record.headers)
    if size > max_bytes:
        raise RecordTooLargeError(
            f"an event for topic {record.topic!r} takes {size} bytes, and the limit is {max_bytes}",
            remedy="keep large contents elsewhere and send a reference, or raise CHOREO_MAX_RECORD_BYTES and the topic's max.message.bytes",
        )
