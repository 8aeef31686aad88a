"""From the log to the lanes: decoding, the inbox, and the lane each job waits in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

from choreo.log.port import Record, TopicPartition
from choreo.runtime.decoding import Decoder
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.sagas.turns import Turns
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork

_DEADLY = 2
"""How many owners must have died at a record handled alone before it counts as their killer."""


class Intake:
    """Takes records in. One call of `accept` at a time.

    Args:
        put: puts a job into its lane.
        owned: the partitions this instance owns, changed by others while a call waits.
        settled: wakes the workers and waits until no job runs or could run, and what is done is committed.
        has_inbox: whether what is done is known by its inbox key.
        turns: of handlers for which more than the event decides; None if there are none.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        unit: UnitOfWork,
        put: Callable[[Hashable, Job], None],
        owned: Mapping[TopicPartition, Partition],
        stats: Stats,
        settled: Callable[[], Awaitable[None]],
        has_inbox: bool,
        turns: Turns | None = None,
    ) -> None:
        self._decoder = decoder
        self._unit = unit
        self._put_in = put
        self._owned = owned
        self._stats = stats
        self._settled = settled
        self._has_inbox = has_inbox
        self._turns = turns
        self._under_way: dict[bytes, Hashable] = {}  # inbox key -> lane, from intake to commit

    async def accept(self, records: Sequence[Record]) -> list[Job]:
        """Turn records into jobs in their lanes; what needs no handler is done at once. Gives the jobs, but for those handled alone."""
        # Now: while a step below waits, a partition may go and come back, and begins anew where its store says.
        read = [(record, self._owned.get(TopicPartition(record.topic, record.partition))) for record in records]
        jobs: list[Job] = []
        for record, partition in read:
            if partition is None or partition.leaving.is_set() or not partition.tracker.deliver(record.offset):
                continue
            if partition.deadly_until >= 0 and partition.tracker.watermark >= partition.deadly_until:
                self._survive(partition)
            if partition.alone:
                await self._place(jobs)
                jobs = []
                await self._alone(partition, record)
                continue
            job = await self._decoder.job(partition, record)
            if job is None:
                self._unit.finish(partition, record.offset)
            else:
                jobs.append(job)
        await self._place(jobs)
        return jobs

    async def _alone(self, partition: Partition, record: Record) -> None:
        """Take in a record of a partition whose owners have died, with nothing else under way beside it."""
        await self._settled()
        if partition.gone:
            return
        deaths = partition.suspects.get(record.offset, 0)
        if deaths >= _DEADLY:
            self._decoder.bury_killer(partition, record, deaths)
            self._unit.finish(partition, record.offset)
        else:
            await self._unit.apart(lambda: self._unit.store.suspect(partition.at, record.offset))
            job = await self._decoder.job(partition, record)
            if job is None:
                self._unit.finish(partition, record.offset)
            else:
                await self._place([job])
        if record.offset >= partition.deadly_until - 1:
            await self._settled()
            self._survive(partition)

    def _survive(self, partition: Partition) -> None:
        partition.alone, partition.deadly_until = False, -1
        self._unit.survive(partition)

    def forget(self, keys: Sequence[bytes]) -> None:
        """These inbox keys are committed."""
        for key in keys:
            self._under_way.pop(key, None)

    def forget_all(self) -> None:
        """Everything under way was given up."""
        self._under_way.clear()
        if self._turns is not None:
            self._turns.forget()

    # --- the inbox ------------------------------------------------------------------------------------------------

    async def _place(self, jobs: Sequence[Job]) -> None:
        """Put jobs into their lanes, without the handlers that have done this event before."""
        if self._turns is not None:
            await self._turns.prepare(jobs)
        seen = await self._unit.store.seen([task.inbox_key for job in jobs for task in job.tasks])
        for job in jobs if seen else ():
            fresh = [task for task in job.tasks if task.inbox_key not in seen]
            self._stats.duplicates += len(job.tasks) - len(fresh)
            job.tasks = job.left = fresh
        for job in jobs:
            if not job.partition.gone:
                self._put(job)

    def _put(self, job: Job) -> None:
        if not job.tasks and job.back is None:
            self._unit.finish(job.partition, job.offset)
            return
        lane = job.lane
        if self._has_inbox:
            for task in job.tasks:
                # A copy of an event that is under way waits in the same lane, and asks the inbox again when it comes up.
                earlier = self._under_way.setdefault(task.inbox_key, lane)
                if earlier is not lane:
                    job.recheck, job.lane, lane = True, earlier, earlier
        self._put_in(lane, job)
