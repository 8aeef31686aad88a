"""Reading the log into the tracker's store: a consumer group whose progress is the store's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import structlog

from choreo.log.port import Consumer, Log, Record, TopicPartition
from choreo.saga.reading import sight
from choreo.saga.sighting import Sighting
from choreo.saga.store.port import Place, TrackerStore
from choreo.saga.tracker.counting import count_read

_log = structlog.get_logger("choreo.tracker")
_POLL, _BULK = 5_000, 8_000
"""Records of one poll, and of one transaction while there are many."""
_NOWHERE = Place(0, 0)
_PAUSE = 0.02
"""Seconds without a record after which what has been gathered is written."""

Searchable: TypeAlias = "Callable[[Sequence[Record], Sequence[Sighting]], Awaitable[list[tuple[str, str, str]]]]"
"""The values of payload fields that are to be kept, of these records: (name, value, saga)."""


class Intake:
    """One consumer and what it has read; implements `Listener`.

    While one transaction is written the next records are read already.

    Attributes:
        seen: how many records were read.
        settled: sagas whose dead letters were settled; whoever folds them takes them out.
    """

    def __init__(
        self, log: Log, store: TrackerStore, topics: Sequence[str], group: str, searchable: Searchable | None = None
    ) -> None:
        self._store, self._searchable = store, searchable
        self._writing: asyncio.Task[list[str]] | None = None
        self._next: dict[TopicPartition, Place] = {}
        self.seen = 0
        self.settled: list[str] = []
        self.consumer: Consumer = log.consumer(topics, group=group, listener=self, ends=True)

    async def read(self, timeout: float, gather: float) -> list[str]:
        """Read what is there and have it written; the sagas concerned.

        Args:
            timeout: seconds to wait for the first record.
            gather: seconds in which records are gathered for one transaction.

        Raises:
            FencedError: another instance has taken over a partition; close this one, and make a new one.
            ChoreoError: the log or the store cannot be used.
        """
        records = await self.consumer.poll(_POLL, timeout)
        until = time.monotonic() + gather
        while records and len(records) < _BULK and (left := until - time.monotonic()) > 0:
            more = await self.consumer.poll(_POLL, min(left, _PAUSE))
            if not more:
                break
            records += more
        await self.written()
        progress = _progress(records)
        self._next.update(progress)
        progress |= self._gaps()
        if not progress:
            return []
        seen = [found for found in map(sight, records) if found is not None]
        data = await self._searchable(records, seen) if self._searchable is not None else ()
        self._writing = asyncio.create_task(self._store.add(seen, progress, data))
        self.seen += len(records)
        count_read(records)
        return list({each.saga: None for each in seen if each.saga})

    async def written(self) -> None:
        """Wait until all that was read is in the store."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self.settled += await writing

    def _gaps(self) -> dict[TopicPartition, Place]:
        """Be at the end also where what lies there is nothing to be read: the mark of a transaction."""
        ends, owned = self.consumer.ends, self.consumer.assignment
        behind = {at: end for at, end in ends.items() if at in owned and end > self._next.get(at, _NOWHERE).next}
        passed = {at: Place(end, self._next.get(at, _NOWHERE).at_ms) for at, end in behind.items()}
        self._next.update(passed)
        return passed

    async def close(self) -> None:
        """Give the partitions back; what was read is written first, if that goes."""
        try:
            await self.written()
        finally:
            await self.consumer.close()

    # --- the listener ---------------------------------------------------------------------------------------------

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The store says where to read on."""
        starts = await self._store.take_over(partitions)
        self._next.update({at: Place(start, 0) for at, start in starts.items()})
        _log.info("partitions assigned", partitions=len(starts))
        return {at: start for at, start in starts.items() if start}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """What was read of them is written before somebody else goes on; what is not, that one reads again."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        _log.info("partitions given back", partitions=len(partitions))

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else has them: what we write of them is refused."""
        _log.warning("partitions lost", partitions=len(partitions))


def _progress(records: Sequence[Record]) -> dict[TopicPartition, Place]:
    last: dict[tuple[str, int], tuple[int, int]] = {}
    for record in records:
        last[record[0], record[1]] = record[2] + 1, record[3]
    return {TopicPartition(*at): Place(offset, max(0, at_ms)) for at, (offset, at_ms) in last.items()}
