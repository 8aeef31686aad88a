"""One call of a handler with the records of a part, and its effect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from choreo.errors import OvertakenError, StoreUnavailableError
from choreo.handler import Handler
from choreo.log.port import NewRecord
from choreo.observe.w3c import unrecorded
from choreo.runtime.batches.context import BatchContext, SyncBatchContext
from choreo.runtime.batches.emit import BatchEmitter
from choreo.runtime.batches.job import BatchJob, Part
from choreo.runtime.emit import emitted
from choreo.runtime.failures import kind_of_fault
from choreo.runtime.invoke import ENDS_MORE_THAN_THE_HANDLER
from choreo.runtime.partitions import AbandonedError
from choreo.runtime.retry import Kind
from choreo.runtime.session import Session
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork

if TYPE_CHECKING:
    from choreo.observe.tracing import Trace, Tracing


class Fault(NamedTuple):
    """How a call failed."""

    error: BaseException
    session: Session

    @property
    def kind(self) -> Kind:
        """Of what kind the error is."""
        return kind_of_fault(self.session.handler.retry, self.error, self.session)


class BatchCaller:
    """Calls the handlers of one service instance that take batches.

    Args:
        state: what the service's lifespan yielded.
        apply: starts a handler with these arguments, in a thread if need be.
        calls: the call of each worker.
        tracing: None if there are no spans.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        stats: Stats,
        emitter: BatchEmitter,
        *,
        state: Any,
        apply: Callable[[Handler, tuple[Any, ...]], Awaitable[Any]],
        calls: dict[asyncio.Task[object], Session],
        tracing: Tracing | None,
    ) -> None:
        self._unit = unit
        self._stats = stats
        self._emitter = emitter
        self._state = state
        self._apply = apply
        self._calls = calls
        self._tracing = tracing

    async def attempt(
        self, part: Part, worker: asyncio.Task[Any], batch: BatchJob | None = None, *, trial: bool = False
    ) -> Fault | None:
        """Call the handler with the records of a part. `worker` is the task that calls.

        Returns how that failed; None if they are done, or if a copy of one of them was faster (`recheck` is set then).

        Args:
            batch: that the part is the next of.
            trial: whether all that the handler does is undone.

        Raises:
            AbandonedError: the partition is going; nothing was done.
            StoreUnavailableError: the store failed; the transaction must be given up.
        """
        session = Session(self._unit, part, part.handler, worker)
        self._calls[worker] = session
        failed: BaseException | None = None
        trace = self._enter_trace(part, session) if self._tracing is not None and not trial else None
        try:
            records = await self._make(part, session)
            part.recheck = any(self._unit.is_pending(member.tasks[0].inbox_key) for member in part.members)
            if trial or part.recheck:
                await session.undo()
            else:
                await session.keep()
                self._take_effect(part, records, batch)
                if trace is not None:
                    self._unit.traced(trace.end(), emits=bool(records))
        except (StoreUnavailableError, OvertakenError):
            raise
        except BaseException as error:  # whatever a handler raises is its retry policy's business
            await session.undo()
            failed = session.reason(error)
            # Cancelled without anybody having cancelled the worker: that was something the handler waited for.
            own = isinstance(failed, asyncio.CancelledError) and not worker.cancelling()
            if failed is None or (isinstance(failed, ENDS_MORE_THAN_THE_HANDLER) and not own):
                raise
            self._stats.called(
                part.handler.name, part.record.topic, perf_counter() - session.begun, type(failed).__qualname__
            )
            if trace is not None:
                trace.failed(failed, _attempt(part))
                trace.end()
            return Fault(failed, session)
        else:
            return None
        finally:
            session.leave()
            del self._calls[worker]
            part.abandon_traces()  # unless they have ended
            del failed  # its traceback holds this call: a circle that would keep the records for long

    def _enter_trace(self, part: Part, session: Session) -> Trace | None:
        """Be inside a span of this call from here on; None if it is not recorded."""
        assert self._tracing is not None  # noqa: S101 - asked before
        handler, members = part.handler, part.members
        trace = None
        if len(members) > 1:
            trace = self._tracing.process_batch(handler.name, [(each.record, each.metadata) for each in members])
        elif not unrecorded(part.metadata.traceparent):
            trace = self._tracing.process(handler.name, part.record, part.metadata)
        if trace is not None:
            part.traces = {handler.name: trace}
            session.context = trace.enter()
        return trace

    async def _make(self, part: Part, session: Session) -> list[NewRecord]:
        """The records of what the handler emits."""
        handler = part.handler
        arguments: tuple[Any, ...] = ([member.event for member in part.members],)
        if handler.takes_context:
            context = BatchContext if handler.is_async else SyncBatchContext
            arguments = (*arguments, context(part, _attempt(part), self._state, session))
        session.begun = perf_counter()
        result = await self._apply(handler, arguments)
        self._stats.called(handler.name, part.record.topic, perf_counter() - session.begun)
        if session.ended:  # too late: it has returned
            session.reason(None)
        session.stage = "emit"
        records = self._emitter.firsts(part, emitted(handler, result))
        if part.partition.gone:
            raise AbandonedError
        return records

    def _take_effect(self, part: Part, records: Sequence[NewRecord], batch: BatchJob | None) -> None:
        """All of it in one step, so that one transaction has it: what was emitted, and that these records are done."""
        self._stats.handled += 1
        self._stats.emitted += len(records)
        for member in part.members:
            self._unit.add(member.partition, member.offset, records, member.tasks[0].inbox_key)
            records = ()
        if batch is not None:
            batch.parts.popleft()
            batch.end(self._unit, part.members)


def _attempt(part: Part) -> int:
    return 1 + (part.failing[part.handler.name].calls if part.failing else 0)
