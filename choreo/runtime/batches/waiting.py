"""The batches of a service instance: what waits, and when it goes to its lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator

from choreo.handler import Batch, Handler
from choreo.runtime.batches.gathering import Gathering
from choreo.runtime.batches.job import BatchJob, group_of, records_in, singles
from choreo.runtime.clock import Clock
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job
from choreo.service import Service


def lanes_of(service: Service, clock: Clock) -> tuple[Batches | None, Lanes[Job]]:
    """The lanes of a service instance and, if handlers of it take batches, what stands before them."""
    batched = [handler for handler in service.handlers.values() if isinstance(handler.rule, Batch)]
    lanes: Lanes[Job] = Lanes(records_in) if batched else Lanes()
    return Batches(lanes, clock, batched) if batched else None, lanes


class Batches:
    """Stands before the lanes: what its handlers take one by one goes through, what they take in batches waits here.

    Args:
        handlers: those that take batches.
    """

    def __init__(self, lanes: Lanes[Job], clock: Clock, handlers: Iterable[Handler]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._gatherings: dict[str, Gathering] = {}
        ages = []
        for handler in handlers:
            if isinstance(handler.rule, Batch):
                ages.append(handler.rule.max_age)
                self._gatherings[handler.name] = Gathering(handler.rule.max_size, round(handler.rule.max_age * 1000))
        self._shortest = min(ages)
        self._some = asyncio.Event()
        self.wake: Callable[[], None]

    def add(self, lane: Hashable, job: Job) -> None:
        """Take in a job that may wait in this lane."""
        gathering = self._gatherings.get(job.tasks[0].handler.name) if job.back is None else None
        if gathering is None or job.partition.alone or (job.recheck and lane != self._lane_of(job)):
            if job.recheck:
                self._let_go(lane)  # it may be a copy of what waits there, and comes behind that
            self._lanes.add(lane, job if gathering is None else BatchJob(job, lane))
        elif gathering.join(lane, job):
            self._lanes.grew(lane)
        else:
            batch = gathering.add(lane, job, self._clock.now_ms())
            if batch is not None:
                self._lanes.add(lane, batch)
            elif not self._some.is_set():
                self._some.set()

    def _let_go(self, lane: Hashable) -> None:
        for gathering in self._gatherings.values():
            if waiting := gathering.release(lane):
                self._lanes.add(lane, waiting)

    def _lane_of(self, job: Job) -> Hashable:
        return group_of(job.partition.at, job.tasks[0].handler, job.record)

    def close(self, batch: BatchJob) -> None:
        """This batch is called: it grows no more."""
        self._gatherings[batch.left[0].handler.name].close(batch)

    def drop(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the jobs that match and do not run, here and in the lanes; of batches, the jobs of their records."""
        dropped = singles(self._lanes.drop(unwanted))
        for gathering in self._gatherings.values():
            dropped += gathering.drop(unwanted)
        return dropped

    def jobs(self) -> Iterator[Job]:
        """The batches that wait, each with its first record."""
        for gathering in self._gatherings.values():
            yield from gathering.jobs()

    # --- when they wait no more -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let go what has waited long enough, until cancelled."""
        while True:
            await self._some.wait()
            now_ms = self._clock.now_ms()
            waits = [one.next_ms(now_ms) for one in self._gatherings.values()]
            wait = min([wait for wait in waits if wait is not None], default=0)
            if wait:
                # Never longer than the shortest age, so that nothing which comes meanwhile is due before.
                await self._clock.sleep(min(self._shortest, wait / 1000))
            for gathering in self._gatherings.values():
                for batch in gathering.due(self._clock.now_ms()):
                    self._lanes.add(batch.lane, batch)
            self.wake()
            if not any(gathering.gathered for gathering in self._gatherings.values()):
                self._some.clear()

    def release_all(self) -> None:
        """Let go everything."""
        self._release(1)

    def relieve(self, load: int) -> None:
        """Nothing more can be taken in: if that is because so much waits here, let go the larger batches.

        Waiting would not make them larger. What is smaller than the others may still become so.
        """
        gathered = sum(gathering.gathered for gathering in self._gatherings.values())
        if gathered and gathered * 2 >= load:
            self._release(gathered / sum(len(gathering.sizes()) for gathering in self._gatherings.values()))

    def _release(self, size: float) -> None:
        for gathering in self._gatherings.values():
            for lane, waiting in gathering.sizes():
                if waiting >= size and (batch := gathering.release(lane)):
                    self._lanes.add(lane, batch)
        self.wake()
