"""Taking over partitions and giving them up: the listener of the consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from choreo.errors import LogUnavailableError, StoreError
from choreo.log.port import Log, TopicPartition
from choreo.runtime import outbox
from choreo.runtime.clock import Clock
from choreo.runtime.committer import Committer
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import OutboxRow, Progress

_log = structlog.get_logger("choreo.runtime")
_RETRY_DELAY = 1.0


class Ownership:
    """Which partitions are ours, and since when.

    The store decides: taking over a partition there fences its earlier owner, and the progress found there is
    where reading starts. The group's committed offset only follows.

    Args:
        grace: seconds that running handlers get to finish when their partition is revoked.
        on_dropped: told the jobs that will not run here.

    Attributes:
        lock: held while partitions come, go, or are recovered.
        fenced: partitions that the group still counts as ours, but the store does not.
    """

    def __init__(
        self,
        *,
        service: str,
        log: Log,
        unit: UnitOfWork,
        lanes: Lanes[Job],
        publisher: Publisher,
        committer: Committer,
        owned: dict[TopicPartition, Partition],
        clock: Clock,
        grace: float,
        on_dropped: Callable[[Sequence[Job]], None],
    ) -> None:
        self.lock = asyncio.Lock()
        self.fenced: set[TopicPartition] = set()
        self._on_dropped = on_dropped
        self._service = service
        self._source = log
        self._unit = unit
        self._lanes = lanes
        self._publisher = publisher
        self._committer = committer
        self._owned = owned
        self._clock = clock
        self._grace = grace

    # --- the listener's three calls -------------------------------------------------------------------------------

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """See `Listener.assigned`."""
        async with self.lock:
            self.fenced.difference_update(partitions)
            starts = await self.take_over(partitions)
        _log.info("partitions assigned", service=self._service, partitions=_names(partitions))
        return starts

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Listener.revoked`: let running handlers finish, commit, forget the rest."""
        async with self.lock:
            leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
            for partition in leaving:
                partition.leaving.set()
            self._drop(leaving)
            await self._let_finish(leaving)
            await self._committer.flush(partitions)
            for partition in leaving:
                partition.abandon()
        _log.info("partitions given back", service=self._service, partitions=_names(partitions))

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """See `Listener.lost`. What is pending may still be committed: the store's epoch decides who owns it."""
        leaving = [self._owned.pop(at) for at in partitions if at in self._owned]
        for partition in leaving:
            partition.abandon()
        self._drop(leaving)
        _log.warning("partitions lost", service=self._service, partitions=_names(partitions))

    def _drop(self, leaving: Sequence[Partition]) -> None:
        going = set(leaving)
        self._on_dropped(self._lanes.drop(lambda job: job.partition in going))

    async def _let_finish(self, leaving: Sequence[Partition]) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*(partition.idle() for partition in leaving))
        except TimeoutError:
            _log.warning(
                "handlers did not finish in time, their records are handled again by the next owner",
                service=self._service, running=sum(partition.running for partition in leaving),
            )  # fmt: skip

    # --- shared with recovery -------------------------------------------------------------------------------------

    def abandon_all(self) -> list[Partition]:
        """Give everything up at once: nothing under way counts any more. Returns what was owned."""
        given_up = list(self._owned.values())
        self._owned.clear()
        for partition in given_up:
            partition.abandon()
        self._drop(given_up)
        return given_up

    async def take_over(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Become the owner in the store, publish what earlier owners left, and say where to read on.

        Waits as long as the store gives no answer.
        """
        if not partitions:
            return {}
        progress, left = await self._progress(partitions)
        for row in left:
            self._publisher.put(row.row_id, outbox.unpack(row.payload))
        starts = await self._starts(progress)
        for at, known in progress.items():
            self._owned[at] = Partition(at, known)
        self._committer.catch_up({at: known.watermark for at, known in progress.items() if known.watermark > 0})
        return starts

    async def _progress(
        self, partitions: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, Progress], list[OutboxRow]]:
        while True:
            try:
                await self._committer.flush(())
                async with self._unit.lock:
                    if self._unit.store.in_transaction:
                        continue
                    return await self._unit.store.take_over(partitions)
            except StoreError as error:
                _log.error("the store gives no answer, waiting", service=self._service, error=str(error))
            await self._clock.sleep(_RETRY_DELAY)

    async def _starts(self, progress: Mapping[TopicPartition, Progress]) -> dict[TopicPartition, int]:
        """Where to read on: the store's progress, or the oldest record the log still has."""
        first = await self._first_kept(progress)
        for at, known in progress.items():
            if 0 <= known.watermark < first[at]:
                _log.error(
                    "records were removed from the log before this service had handled them",
                    service=self._service, partition=_names([at]), first_missing=known.watermark, first_kept=first[at],
                )  # fmt: skip
        return {at: max(known.watermark, first[at]) for at, known in progress.items()}

    async def _first_kept(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        while True:
            try:
                return await self._source.beginning_offsets(partitions)
            except LogUnavailableError as error:
                _log.warning("the log gives no answer, waiting", service=self._service, error=str(error))
            await self._clock.sleep(_RETRY_DELAY)


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{topic}/{partition}" for topic, partition in sorted(partitions))
