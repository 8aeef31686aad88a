"""The records between a consumer's thread and the event loop: bounded, and purged when partitions move."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping

from choreo.log.port import Record, TopicPartition

MAX_RECORDS = 2_000
MAX_BYTES = 16 * 1024 * 1024


class Buffer:
    """Records in the order they came. The thread puts, pauses and drops; the loop takes.

    Attributes:
        paused: partitions whose records are kept back; the thread's own.
    """

    def __init__(self) -> None:
        self.paused: frozenset[TopicPartition] = frozenset()
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._held: list[Record] = []
        self._bytes = 0
        self._ends: dict[TopicPartition, int] = {}

    def filled(self, share: float) -> bool:
        """Whether it holds at least this share of what it may hold."""
        return len(self._records) >= MAX_RECORDS * share or self._bytes >= MAX_BYTES * share

    def put(self, records: Collection[Record]) -> None:
        """Append records."""
        if self.paused:
            self._held += (record for record in records if record[:2] in self.paused)
            records = [record for record in records if record[:2] not in self.paused]
        with self._lock:
            self._records.extend(records)
            self._bytes += _size(records)

    def end(self, ends: Mapping[TopicPartition, int]) -> None:
        """The log ends here, behind the records that were put."""
        with self._lock:
            self._ends.update(ends)

    def ends(self) -> dict[TopicPartition, int]:
        """Where the log ended, for partitions of which no record is here (any more)."""
        with self._lock:
            if not self._ends:
                return {}
            here = {record[:2] for record in (*self._records, *self._held)} | self.paused
            return {at: end for at, end in self._ends.items() if at not in here}

    def take(self, limit: int) -> list[Record]:
        """The first `limit` records, or as many as there are."""
        with self._lock:
            there, pop = len(self._records), self._records.popleft
            taken = [pop() for _ in range(min(limit, there))]
            self._bytes -= self._bytes * len(taken) // (there or 1)  # about: exact as often as it is empty
        return taken

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Keep the records of these partitions back: those there are, and those that come."""
        self.paused |= set(partitions)
        self._held += self._remove(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Give back what was kept: older than all that will be fetched of these partitions."""
        self.paused -= set(partitions)
        held, self._held = self._held, []
        self.put(held)

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the records of these partitions, and where they end."""
        self._remove(partitions)
        with self._lock:
            for partition in partitions:
                self._ends.pop(partition, None)
        self._held = [record for record in self._held if record[:2] not in partitions]

    def _remove(self, partitions: Collection[TopicPartition]) -> list[Record]:
        with self._lock:
            removed = [record for record in self._records if record[:2] in partitions]
            if removed:
                self._records = deque(record for record in self._records if record[:2] not in partitions)
                self._bytes = _size(self._records)
        return removed


def _size(records: Iterable[Record]) -> int:
    return sum(len(record[4] or b"") + len(record[5] or b"") for record in records)
