"""The fixed set of long-lived tasks that take ready lanes and run handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from choreo.runtime.breaker import Breakers
from choreo.runtime.clock import Clock
from choreo.runtime.failures import HELD
from choreo.runtime.invoke import Invoker
from choreo.runtime.lanes import Lanes
from choreo.runtime.parking import lane_of
from choreo.runtime.partitions import AbandonedError, Job, Task
from choreo.runtime.returns import Returns
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import Behind

_SLICE = 0.01
"""Seconds after which a worker lets others run (the commit, above all), though its handlers do not suspend."""


class Workers:
    """Runs the jobs of ready lanes, at most `most` at once.

    A worker goes on as long as there is a ready lane, so handlers that do not suspend cost no scheduling.
    When a handler does suspend, the next idle worker has been woken already, or made where all are at work. A record that
    is to be tried again later leaves its worker to others meanwhile.

    Args:
        most: how many workers there may be.
        spawn: starts a task that the instance watches.
        on_failure: told what went wrong outside the handlers' own code.
        on_deferred: told that a record takes no part for a while.
    """

    def __init__(
        self,
        lanes: Lanes[Job],
        unit: UnitOfWork,
        invoker: Invoker,
        returns: Returns,
        breakers: Breakers,
        *,
        most: int,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Clock,
        stats: Stats,
        on_failure: Callable[[Exception], None],
        on_deferred: Callable[[], None],
    ) -> None:
        self._lanes = lanes
        self._unit = unit
        self._invoker = invoker
        self._returns = returns
        self._breakers = breakers
        self._most = most
        self._spawn = spawn
        self._made = 0
        self._clock = clock
        self._stats = stats
        self._on_failure = on_failure
        self._on_deferred = on_deferred
        self._timers: dict[Hashable, asyncio.Task[None]] = {}
        self._quiet: asyncio.Future[None] | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False

    def wake(self) -> None:
        """There may be work: wake one worker, which wakes the next if there is more."""
        if self._waking or not self._lanes.has_ready:
            return
        while self._idle:
            worker = self._idle.pop()  # the one that ran last: what it needs is still in the processor's cache
            if not worker.done():
                self._waking = True
                worker.set_result(None)
                return
        if self._made < self._most:
            self._made += 1
            self._waking = True
            self._spawn(self.work())

    async def work(self) -> None:
        """One worker; runs until cancelled."""
        lanes = self._lanes
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - workers are tasks
        self._invoker.enter_worker(me)
        self._waking = False
        monotonic = self._clock.monotonic
        slice_end = monotonic() + _SLICE
        while True:
            if monotonic() > slice_end:
                await asyncio.sleep(0)
                slice_end = monotonic() + _SLICE
            taken = lanes.take()
            if taken is None and self._unit.is_due and lanes.is_quiet:
                await self._unit.flush()  # nobody else has more to add, so it need not wait for the committer's turn
                taken = lanes.take()
            if taken is None:
                await self._rest()
                slice_end = monotonic() + _SLICE
                continue
            lane, job = taken
            self.wake()
            partition = job.partition
            partition.running += 1
            wait = None
            try:
                if not partition.leaving.is_set():
                    again = job.recheck or job.back is not None
                    wait = await (self._run_again(job, me) if again else self._run(job, me))
                    if wait is None:
                        self._unit.finish(partition, job.offset, job.tasks)
            except AbandonedError:
                pass
            except Exception as error:  # noqa: BLE001 - the store failed, or we did: either way start over from it
                self._on_failure(error)
            finally:
                if wait is None or partition.leaving.is_set():
                    lanes.done(lane)
                    job.forget()  # what it remembers would be old when somebody else finds it here
                else:
                    self._defer(lane, wait)
                partition.end_job()
            del job  # what it remembers of its saga is read anew for the next event, others may write it meanwhile

    async def _rest(self) -> None:
        if self._quiet is not None and self._lanes.is_quiet and not self._quiet.done():
            self._quiet.set_result(None)  # here, since lanes are also dropped while nobody runs
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await waiter
        self._waking = False

    async def quiet(self) -> None:
        """Wait until no job runs or could run."""
        self.wake()
        while not self._lanes.is_quiet:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet

    def stop(self) -> None:
        """Forget what waits for another attempt."""
        for timer in self._timers.values():
            timer.cancel()

    # --- one job ----------------------------------------------------------------------------------------------------

    async def _run(self, job: Job, me: asyncio.Task[Any]) -> float | None:
        """Run what is left of a job; returns the seconds until the next attempt at one of them, None if all is done."""
        waits = None
        for task in job.left:
            if self._unit.parked and job.back is None and await self._is_parked(job, task):
                continue
            wait = await self._invoker.run(job, task, me)
            if wait is not None:
                waits = [*(waits or ()), (task, wait)]
        if waits is None:
            return None
        job.left = [task for task, _ in waits]
        return min(wait for _, wait in waits)

    async def _run_again(self, job: Job, me: asyncio.Task[Any]) -> float | None:
        """As `_run`, for a job that is not the first that comes of its event."""
        if job.recheck:
            seen = await self._unit.seen(job.left)
            self._stats.duplicates += len(seen)
            job.left = [task for task in job.left if task.inbox_key not in seen]
        if job.back is None:
            return await self._run(job, me)
        due = self._returns.begin(job, job.back)
        if due > 0:
            return due
        wait = await self._run(job, me)
        if wait is None:
            job.left = ()
            wait = await self._returns.drain(job, job.back, me)
        return wait

    async def _is_parked(self, job: Job, task: Task) -> bool:
        """Whether a record's key waits for an earlier one; then it waits behind it."""
        handler, record = task.handler, job.record
        if not handler.ordered or record.key is None:
            return False
        lane = lane_of(handler.name, record.topic, record.key)
        if lane not in self._unit.parked:
            return False
        return await self._unit.put_behind(job.partition, job.offset, Behind(lane, record), (task,))

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _defer(self, lane: Hashable, wait: float) -> None:
        self._lanes.defer(lane)
        self._on_deferred()
        if wait == HELD:
            if not self._breakers.holds(lane):  # its breaker has closed while another handler ran
                self._resume(lane)
        elif wait <= 0:
            self._resume(lane)
        else:
            if earlier := self._timers.pop(lane, None):  # of a job that has been given up since
                earlier.cancel()
            self._timers[lane] = asyncio.get_running_loop().create_task(self._resume_after(lane, wait))

    async def _resume_after(self, lane: Hashable, wait: float) -> None:
        await self._clock.sleep(wait)
        del self._timers[lane]
        self._resume(lane)

    def _resume(self, lane: Hashable) -> None:
        self._lanes.resume(lane)
        self.wake()
