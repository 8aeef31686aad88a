"""Taking over partitions and giving them up: the listener of the consumer group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from choreo.errors import LogUnavailableError, StoreError
from choreo.log.port import Log, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.committer import Committer
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import Progress

_log = structlog.get_logger("choreo.runtime")
_RETRY_DELAY = 1.0
_DEATHS = 2
"""How many owners in a row must have died before a record is suspected of it."""

T = TypeVar("T")


class Ownership:
    """Which partitions are ours, and since when.

    The store decides: taking over a partition there fences its earlier owner, and the progress found there is
    where reading starts. The group's committed offset only follows.

    Args:
        grace: seconds that running handlers get to finish when their partition is revoked.
        max_in_flight: how many records an owner can have had under way when it died.
        has_timers: whether a timer, too, may be what an owner died of.
        drop: takes out the jobs that match and do not run.
        on_dropped: told the jobs that will not run here.
        on_taken: called when partitions have been taken over.
        spawn: starts a task that the instance watches.

    Attributes:
        lock: held while partitions come, go, or are recovered.
        doubtful: partitions that were ours when the store named another owner of some, and how far they were handled:
            whose they are the group knows.
        stopping: whether to give up where an answer would be waited for.
    """

    def __init__(
        self,
        *,
        service: str,
        stats: Stats,
        log: Log,
        unit: UnitOfWork,
        drop: Callable[[Callable[[Job], bool]], list[Job]],
        publisher: Publisher,
        committer: Committer,
        owned: dict[TopicPartition, Partition],
        clock: Clock,
        grace: float,
        max_in_flight: int,
        has_timers: bool,
        on_dropped: Callable[[Sequence[Job]], None],
        on_taken: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.lock = asyncio.Lock()
        self.doubtful: dict[TopicPartition, int] = {}
        self.stopping = False
        self._on_dropped = on_dropped
        self._stats = stats
        self._on_taken = on_taken
        self._spawn = spawn
        self._epochs: dict[TopicPartition, int] = {}  # of what was taken over and not given back, by us or by the group
        self._service = service
        self._source = log
        self._unit = unit
        self._drop_jobs = drop
        self._publisher = publisher
        self._committer = committer
        self._owned = owned
        self._leaving: list[Partition] = []
        self._clock = clock
        self._grace = grace
        self._max_in_flight = max_in_flight
        self._has_timers = has_timers

    # --- the listener's three calls -------------------------------------------------------------------------------

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `Listener.assigned`."""
        self._stats.rebalances["assigned"] += 1
        async with self.lock:
            starts = await self.take_over(partitions)
            self._doubt_no_more(partitions)
        _log.info("partitions assigned", service=self._service, partitions=_names(partitions))
        return starts

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Listener.revoked`: let running handlers finish, commit, forget the rest."""
        self._stats.rebalances["revoked"] += 1
        async with self.lock:
            self._doubt_no_more(partitions)
            self._leaving = leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
            for partition in leaving:
                partition.leaving.set()
            self._drop(leaving)
            await self.let_finish(leaving)
            await self._committer.flush(partitions)
            for partition in leaving:
                partition.abandon()
            await self._give_back(self._let_go(partitions))
        _log.info("partitions given back", service=self._service, partitions=_names(partitions))

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Listener.lost`. What is pending may still be committed: the store's epoch decides who owns it."""
        self._stats.rebalances["lost"] += 1
        self._doubt_no_more(partitions)
        leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
        for partition in leaving:
            partition.abandon()
        self._drop(leaving)
        self._spawn(self._still_alive(self._let_go(partitions)))
        _log.warning("partitions lost", service=self._service, partitions=_names(partitions))

    def _let_go(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {at: self._epochs.pop(at) for at in partitions if at in self._epochs}

    async def _give_back(self, epochs: Mapping[TopicPartition, int]) -> None:
        """Tell the store that we have not died; if it cannot be told, the next owner takes us for dead, and is careful."""
        try:
            await self._unit.apart(lambda: self._unit.store.give_back(epochs))
        except StoreError as error:
            _log.warning(
                "the store does not know that partitions were given back", service=self._service, error=str(error)
            )

    async def _still_alive(self, epochs: Mapping[TopicPartition, int]) -> None:
        """As `_give_back`, for partitions that the group took away, however long the store gives no answer.

        Else a record that an instance was handling alone when its broker was away would count as what killed it.
        """
        with contextlib.suppress(StoreError):  # we are stopping
            await self._answered(lambda: self._unit.apart(lambda: self._unit.store.give_back(epochs)))

    def _drop(self, leaving: Sequence[Partition]) -> None:
        going = set(leaving)
        self._on_dropped(self._drop_jobs(lambda job: job.partition in going))

    # --- shared with recovery -------------------------------------------------------------------------------------

    def doubt(self) -> None:
        """The store names another owner of something: who stood still knows of nothing else either whether it is ours."""
        self.doubtful.update({at: partition.tracker.watermark for at, partition in self._owned.items()})

    def _doubt_no_more(self, partitions: Iterable[TopicPartition]) -> None:
        for at in partitions:
            self.doubtful.pop(at, None)

    async def let_finish(self, leaving: Sequence[Partition]) -> None:
        """Wait for running handlers; what those do that outlive the grace counts no more."""
        try:
            async with asyncio.timeout(self._grace):
                for partition in leaving:
                    await partition.idle()
        except TimeoutError:
            _log.warning(
                "handlers did not finish in time, their records are handled again by the next owner",
                service=self._service, running=sum(partition.running for partition in leaving),
            )  # fmt: skip
            for partition in leaving:
                partition.abandon()

    def abandon_all(self) -> list[Partition]:
        """Give everything up at once: nothing under way counts any more. Returns what was owned."""
        given_up = list(self._owned.values())
        self._owned.clear()
        for partition in (*given_up, *self._leaving):
            partition.abandon()
        self._drop(given_up)
        return given_up

    async def take_over(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Become the owner in the store, publish what earlier owners left, and say where to read on.

        Waits as long as store or log give no answer.
        """
        if not partitions:
            return {}
        found = await self._answered(lambda: self._unit.apart(lambda: self._unit.store.take_over(partitions)))
        self._epochs.update({at: taken.epoch for at, taken in found.progress.items()})
        self._unit.parked |= found.parked
        for row in found.outbox:
            self._publisher.put(row.row_id, row.records)
        first = await self._answered(lambda: self._source.beginning_offsets(partitions))
        end = await self._answered(lambda: self._source.end_offsets(partitions))
        starts = {}
        for at, taken in found.progress.items():
            known = self._checked(at, taken, first[at], end[at])
            starts[at] = max(known.watermark, first[at])
            self._owned[at] = Partition(at, known)
            if known.deaths:
                self._suspect(self._owned[at], known.deaths, starts[at], end[at])
        self._committer.catch_up({at: known.watermark for at, known in found.progress.items() if known.watermark > 0})
        self._on_taken()
        return starts

    def _suspect(self, partition: Partition, deaths: int, start: int, end: int) -> None:
        """Earlier owners have died here; maybe of one of the records that lie before us, or of a timer."""
        partition.haunted = deaths if self._has_timers else 0
        partition.deadly_until = min(end, start + self._max_in_flight)
        if partition.deadly_until <= start:
            partition.deadly_until = -1
            self._unit.survive(partition)
        elif deaths >= _DEATHS:
            partition.alone = True
            _log.warning(
                "owners of this partition have died again and again: its next records are handled one at a time",
                service=self._service, partition=_names([partition.at]), deaths=deaths,
                records=partition.deadly_until - start,
            )  # fmt: skip

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except (StoreError, LogUnavailableError) as error:
                if self.stopping:
                    raise
                _log.error("no answer, waiting", service=self._service, error=str(error))
            await self._clock.sleep(_RETRY_DELAY)

    def _checked(self, at: TopicPartition, known: Progress, first: int, end: int) -> Progress:
        """The store's progress, unless it is of another log than the one that is there."""
        if max((known.watermark - 1, *known.done)) >= end:
            _log.error(
                "the log ends before what this service has handled (made anew, or its end was lost); reading all it has",
                service=self._service, partition=_names([at]), handled=known.watermark, end=end,
            )  # fmt: skip
            return known._replace(watermark=-1, done=())
        if 0 <= known.watermark < first:
            _log.error(
                "records were removed from the log before this service had handled them",
                service=self._service, partition=_names([at]), first_missing=known.watermark, first_kept=first,
            )  # fmt: skip
        return known


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{topic}/{partition}" for topic, partition in sorted(partitions))
