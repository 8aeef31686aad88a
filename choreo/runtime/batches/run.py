"""Calling handlers with batches, and finding the records that fail.

What fails as a whole is tried again as a whole, as long as its `Retry` has attempts whose wait is spent in the lane. Then
its halves are called, down to one record, and always the first of what is left: what does well keeps its order.

A record that fails by itself is a *suspect* until another record of the batch has done well. If none does, that is an
outage, which is the circuit breaker's business: the suspects go back to their places, and all of it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from choreo.durations import seconds
from choreo.handler import Batch, Handler
from choreo.runtime.batches.call import BatchCaller, Fault
from choreo.runtime.batches.context import identity
from choreo.runtime.batches.emit import BatchEmitter
from choreo.runtime.batches.job import BatchJob, Part
from choreo.runtime.batches.waiting import Batches
from choreo.runtime.clock import Clock
from choreo.runtime.deadletter import said
from choreo.runtime.failures import HELD
from choreo.runtime.invoke import Invoker
from choreo.runtime.partitions import AbandonedError, Job, Task
from choreo.runtime.retry import Again, decide

_log = structlog.get_logger("choreo.runtime")
_MOST_SUSPECTS = 5
"""How many there are until a record from elsewhere in the batch is asked: many bad ones may come in a row."""


class BatchInvoker(Invoker):
    """Runs the handlers of a service some of which take batches.

    Args:
        batches: where batches wait.
        batch_emitter: makes the records of what is emitted for them.
        parts: as for `Invoker`.
    """

    def __init__(self, *, batches: Batches, batch_emitter: BatchEmitter, clock: Clock, **parts: Any) -> None:
        super().__init__(**parts)
        self._batches = batches
        self._clock = clock
        self._caller = BatchCaller(
            self._unit, self._stats, batch_emitter, state=self._state, apply=self._apply, calls=self._calls,
            tracing=self._tracing,
        )  # fmt: skip

    async def run(self, job: Job, task: Task, worker: asyncio.Task[Any]) -> float | None:
        """See `Invoker.run`."""
        if isinstance(job, BatchJob):
            return await self._run_batch(job, task.handler, worker)
        if isinstance(task.handler.rule, Batch):
            return await self._run_returned(job, task, worker)
        return await super().run(job, task, worker)

    async def _run_returned(self, job: Job, task: Task, worker: asyncio.Task[Any]) -> float | None:
        """Call a handler with one record that comes back: a batch of one, judged like any record."""
        if self._breakers.troubled and not self._breakers.may_run(job, task.handler):
            return HELD
        part = Part([job])
        part.failing, part.recheck = job.failing, False
        fault = await self._caller.attempt(part, worker)
        if fault is not None:
            return await self._failures.judge(job, task, *fault)
        if part.recheck:
            self._stats.duplicates += 1
        elif self._breakers.troubled:
            self._breakers.succeeded(job, task.handler)
        return None

    async def _run_batch(self, batch: BatchJob, handler: Handler, worker: asyncio.Task[Any]) -> float | None:
        self._batches.close(batch)
        if self._breakers.troubled and (part := batch.part()) is not None:
            if not self._breakers.may_run(part, handler):
                return HELD
            if self._breakers.is_open(handler.name) and await self._is_down(batch, part, worker):
                return HELD
        before = batch.unfinished
        while (part := batch.part()) is not None:
            if part.partition.leaving.is_set():
                raise AbandonedError
            wait = await self._run_part(batch, part, worker)
            if wait is not None:
                return wait
        if batch.suspects and batch.unfinished == before:
            return await self._doubt(batch, worker)
        await self._convict(batch)  # others have done well just now
        return None

    async def _run_part(self, batch: BatchJob, part: Part, worker: asyncio.Task[Any]) -> float | None:
        if part.recheck:
            await self._sift(batch, part)
            return None
        fault = await self._caller.attempt(part, worker, batch)
        if fault is not None:
            return await self._judge(batch, part, fault, worker)
        if not part.recheck:
            if self._breakers.troubled:
                self._breakers.succeeded(part, part.handler)
            await self._convict(batch)
        return None

    async def _sift(self, batch: BatchJob, part: Part) -> None:
        """Take out of a part what the inbox knows; of several copies the others come at the end of the batch."""
        seen = await self._unit.seen([member.tasks[0] for member in part.members])
        fresh: dict[bytes, Job] = {}
        done: list[Job] = []
        for member in part.members:
            key = member.tasks[0].inbox_key
            if key in seen:
                done.append(member)
            elif key in fresh:
                batch.copies.append(member)
            else:
                fresh[key] = member
                member.recheck = False
        batch.parts.popleft()
        if fresh:
            left = Part([*fresh.values()])
            left.failing = part.failing
            batch.parts.appendleft(left)
        self._stats.duplicates += len(done)
        batch.end(self._unit, done)

    # --- what failed ------------------------------------------------------------------------------------------------

    async def _judge(self, batch: BatchJob, part: Part, fault: Fault, worker: asyncio.Task[Any]) -> float | None:
        """Decide what becomes of a part that failed; returns the seconds until the next attempt, None to go on."""
        handler, alone, kind = part.handler, len(part.members) == 1, fault.kind
        if part.partition.gone:
            raise AbandonedError
        if alone and kind == "business":
            await self._reject(batch, part, fault)
            return None
        now_ms = self._clock.now_ms()
        failing = part.failures(now_ms)
        failing.calls += 1
        failing.attempts += 1
        decision = decide(
            handler.retry, fault.error, kind, attempt=failing.attempts, first_ms=failing.first_ms, now_ms=now_ms,
            chance=self._clock.random(), far="topic",
        )  # fmt: skip
        about = {
            **identity(part), "attempt": failing.calls, "error": f"{type(fault.error).__name__}: {said(fault.error)}",
        }  # fmt: skip
        if isinstance(decision, Again):
            self._stats.retry(handler.name, "lane")
            _log.warning("batch failed, trying again", **about, delay=round(decision.delay, 3))
            return decision.delay
        if not alone:
            _log.warning("batch failed, its halves are handled by themselves", **about)
            batch.split()
            await asyncio.sleep(0)  # handlers may not suspend, and there may be many halves
            return None
        batch.suspect(fault.error, fault.session.stage, decision)
        return await self._doubt(batch, worker) if len(batch.suspects) >= _MOST_SUSPECTS else None

    async def _reject(self, batch: BatchJob, part: Part, fault: Fault) -> None:
        """A business error is a verdict: this record's, and a sign that others would do well."""
        await self._convict(batch)
        (member,) = part.members
        member.failing = part.failing
        await self._failures.judge(member, member.tasks[0], *fault)
        batch.parts.popleft()
        batch.end(self._unit, (member,))

    async def _convict(self, batch: BatchJob) -> None:
        """Others do well, or nobody can tell: the suspects fail for themselves."""
        batch.waited = False
        while batch.suspects:
            part, error, stage, decision = batch.suspects[0]
            (member,) = part.members
            if member.partition.gone:
                raise AbandonedError
            failing = part.failures(self._clock.now_ms())
            await self._failures.carry_out(member, member.tasks[0], error, stage, failing, decision)
            batch.suspects.pop(0)
            batch.end(self._unit, (member,))

    async def _doubt(self, batch: BatchJob, worker: asyncio.Task[Any]) -> float | None:
        """Nothing has done well since the suspects have failed: it may be an outage."""
        handler = batch.left[0].handler
        others = [member for part in batch.parts for member in part.members]
        if others and await self._does_well(others, worker):
            await self._convict(batch)
            return None
        for part, *_ in batch.suspects:
            calls = part.failures(self._clock.now_ms()).calls
            if self._breakers.failed(part, handler, again=False, calls=calls) and self._may_wait(part):
                batch.start_over()
                return HELD
        if not batch.waited:  # others may be about to find out too
            batch.waited = True
            batch.start_over()
            return min(seconds(handler.retry.in_place), seconds(handler.retry.max_delay))
        await self._convict(batch)
        return None

    async def _is_down(self, batch: BatchJob, part: Part, worker: asyncio.Task[Any]) -> bool:
        """Whether calls still fail, while the breaker is open; asked with one record, since one may spoil a batch."""
        rest = batch.rest
        if len(rest) == 1 or await self._does_well(rest, worker):
            return False
        return self._breakers.failed(part, part.handler, again=True) and self._may_wait(part)

    async def _does_well(self, members: Sequence[Job], worker: asyncio.Task[Any]) -> bool:
        """Call the handler with one of these records, wherever, and undo what it does: its turn will come."""
        part = Part([members[int(self._clock.random() * len(members))]])
        fault = await self._caller.attempt(part, worker, trial=True)
        well = fault is None or fault.kind == "business"
        if well and self._breakers.troubled:
            self._breakers.succeeded(part, part.handler)
        return well

    def _may_wait(self, part: Part) -> bool:
        """Not even an outage keeps a record for ever."""
        now_ms = self._clock.now_ms()
        return now_ms - part.failures(now_ms).first_ms <= seconds(part.handler.retry.within) * 1000
