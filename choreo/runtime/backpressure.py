"""How much more may be read, and which partitions have to wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from choreo.log.port import Consumer, Record, TopicPartition
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.unit import UnitOfWork

_MOST_WAITING = 10_000
"""How many records may wait for another attempt, or behind one that does, without counting as load."""
_MOST_BYTES = 32 * 1024 * 1024
"""How many bytes of values may be under way, and as many may wait: fewer records, if they are large at present."""
_MEMORY = 100
"""How many smaller records it takes until they count for half; larger ones count at once."""
_LOOK_AGAIN = 0.5
"""Seconds after which closed partitions are looked at again, though no record has come."""


class Backpressure:
    """Bounds what an instance holds in memory and, per partition, what the store has to remember.

    A partition is closed (paused) when it has been read too far past its oldest unfinished record, or when too many
    records wait and it has more than its share of them. The others go on.

    Args:
        most_in_flight: how many records may be read and not done, or done and not yet committed or published.
        most_reach: how many offsets a partition may be read past its oldest unfinished record.

    Attributes:
        relieve: told the load when there is no room, where something could make some.
    """

    def __init__(
        self,
        owned: Mapping[TopicPartition, Partition],
        lanes: Lanes[Job],
        unit: UnitOfWork,
        publisher: Publisher,
        *,
        most_in_flight: int,
        most_reach: int,
    ) -> None:
        self._owned = owned
        self._lanes = lanes
        self._unit = unit
        self._publisher = publisher
        self._most_in_flight = most_in_flight
        self._most_reach = most_reach
        self._closed: dict[TopicPartition, Partition] = {}
        self._size = 1.0  # bytes of a value
        self.consumer: Consumer
        self.relieve: Callable[[int], None] | None = None

    def weigh(self, records: Sequence[Record]) -> None:
        """Learn how large the records are that were read."""
        if records:
            size = sum(len(record.value or b"") for record in records) / len(records)
            share = len(records) / (len(records) + _MEMORY)
            self._size = max(size, self._size + (size - self._size) * share)

    def _fit(self, most: int) -> int:
        """As many records, or so many of their size as fit into memory; one always does."""
        return max(1, min(most, int(_MOST_BYTES / max(1.0, self._size))))

    @property
    def load(self) -> int:
        """How many records are under way, from reading to publishing what they led to."""
        undone = self._publisher.backlog + self._unit.jobs - min(self._lanes.deferred_jobs, self._fit(_MOST_WAITING))
        for partition in self._owned.values():
            undone += partition.tracker.open
        return undone

    async def room(self) -> int:
        """How many records may be read now."""
        waiting = self._lanes.deferred_jobs
        if self._closed or waiting > self._fit(_MOST_WAITING) or self._reaches_far():
            await self._adjust(waiting)
        load = self.load
        room = self._fit(self._most_in_flight) - load
        if room <= 0 and self.relieve is not None:
            self.relieve(load)
        return room

    def _reaches_far(self) -> bool:
        for partition in self._owned.values():  # noqa: SIM110 - `any` makes a generator, at each poll
            if partition.tracker.reach > self._most_reach:
                return True
        return False

    @property
    def patience(self) -> float | None:
        """Seconds to wait for records before asking for room again; None if there is no need to."""
        return _LOOK_AGAIN if self._closed else None

    async def _adjust(self, waiting: int) -> None:
        closed = {at: one for at, one in self._closed.items() if self._owned.get(at) is one}
        wanted = {at: one for at, one in self._owned.items() if self._is_heavy(one, waiting, 2 if at in closed else 1)}
        self._closed = wanted
        await self.consumer.pause(wanted.keys() - closed.keys())
        await self.consumer.resume(closed.keys() - wanted.keys())

    def _is_heavy(self, partition: Partition, waiting: int, ease: int) -> bool:
        """`ease` divides the limits: what is closed opens only when it is well below them."""
        tracker = partition.tracker
        share = tracker.open * len(self._owned) >= waiting
        return tracker.reach > self._most_reach // ease or (waiting > self._fit(_MOST_WAITING) // ease and share)
