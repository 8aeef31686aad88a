"""The fixed set of long-lived tasks that take ready lanes and run handlers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from choreo.runtime.invoke import Invoker
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import AbandonedError, Job
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork

_SLICE = 0.01
"""Seconds after which a worker lets others run (the commit, above all), though its handlers do not suspend."""


class Workers:
    """Runs the jobs of ready lanes, at most `concurrency` at once.

    A worker goes on as long as there is a ready lane, so handlers that do not suspend cost no scheduling.
    When a handler does suspend, the next idle worker has been woken already.

    Args:
        on_failure: told what went wrong outside the handlers' own code.
    """

    def __init__(
        self,
        lanes: Lanes[Job],
        unit: UnitOfWork,
        invoker: Invoker,
        stats: Stats,
        *,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._lanes = lanes
        self._unit = unit
        self._invoker = invoker
        self._stats = stats
        self._on_failure = on_failure
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False

    def wake(self) -> None:
        """There may be work: wake one idle worker, which wakes the next if there is more."""
        if self._waking or not self._lanes.has_ready:
            return
        while self._idle:
            worker = self._idle.popleft()
            if not worker.done():
                self._waking = True
                worker.set_result(None)
                return

    async def work(self) -> None:
        """One worker; runs until cancelled."""
        lanes = self._lanes
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - workers are tasks
        slice_end = monotonic() + _SLICE
        while True:
            if monotonic() > slice_end:
                await asyncio.sleep(0)
                slice_end = monotonic() + _SLICE
            taken = lanes.take()
            if taken is None:
                await self._rest()
                slice_end = monotonic() + _SLICE
                continue
            lane, job = taken
            self.wake()
            partition = job.partition
            partition.running += 1
            try:
                await self._run(job, me)
            except AbandonedError:
                pass
            except Exception as error:  # noqa: BLE001 - the store failed, or we did: either way start over from it
                self._on_failure(error)
            finally:
                lanes.done(lane)
                partition.end_job()

    async def _rest(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        await waiter
        self._waking = False

    async def _run(self, job: Job, me: asyncio.Task[Any]) -> None:
        if job.partition.leaving.is_set():
            return
        tasks = job.tasks
        if job.recheck:
            seen = await self._unit.seen(tasks)
            self._stats.duplicates += len(seen)
            tasks = [task for task in tasks if task.inbox_key not in seen]
        for task in tasks:
            await self._invoker.run(job, task, me)
        self._unit.finish(job.partition, job.record.offset, job.tasks)
