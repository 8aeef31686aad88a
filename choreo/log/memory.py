"""The log in memory: for tests and the simulator. It keeps every promise of the port but durability."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Self

from choreo.log.embedded import Commit, EmbeddedLog, Fence, Fetched, fenced_producer, not_owner
from choreo.log.groups import Group, Step
from choreo.log.limits import Limits, limits_of, partition_of, place_of, unknown_partition, unknown_topic
from choreo.log.port import Capabilities, NewRecord, Record, Start, Topic, TopicPartition


def _system_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class _Partition:
    """Records from offset `first` on; `peaks` holds, for each, the highest timestamp up to it."""

    limits: Limits
    first: int = 0
    records: list[Record] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def next(self) -> int:
        return self.first + len(self.records)

    def trim(self, now: int) -> None:
        if self.limits.retention_ms is not None:
            expired = bisect_left(self.peaks, now - self.limits.retention_ms)
            del self.records[:expired], self.peaks[:expired]
            self.first += expired


@dataclass
class _Group:
    members: Group = field(default_factory=Group)
    committed: dict[TopicPartition, int] = field(default_factory=dict)


class MemoryLog(EmbeddedLog):
    """One log for everybody who holds this object; its records live as long as it does.

    Args:
        now: the clock for timestamps and retention, in milliseconds since the epoch.
    """

    url = "memory://"
    capabilities = Capabilities(
        durable=False, several_processes=False, transactions=True, topic_creation=True, retention=True
    )
    check_interval = None

    def __init__(self, *, now: Callable[[], int] = _system_clock) -> None:
        super().__init__()
        self._now = now
        self._topics: dict[str, Topic] = {}
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._groups: dict[str, _Group] = {}
        self._producers: dict[str, int] = {}
        self._ids = count(1)
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._users -= 1
        if not self._users:
            await self.close_consumers()

    async def topics(self) -> dict[str, Topic]:
        """See `Log.topics`."""
        return dict(self._topics)

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        """See `Log.create_topics`."""
        limits = {topic.name: limits_of(topic) for topic in topics}
        created = []
        for topic in topics:
            if topic.name not in self._topics:
                self._topics[topic.name] = topic
                for partition in range(topic.partitions):
                    self._partitions[TopicPartition(topic.name, partition)] = _Partition(limits[topic.name])
                created.append(topic.name)
        self.wake(regrouped=bool(created))
        return created

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.beginning_offsets`."""
        return {partition: self._partition(partition).first for partition in partitions}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.end_offsets`."""
        return {partition: self._partition(partition).next for partition in partitions}

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.committed`."""
        committed = self._group(group).committed
        return {partition: committed[partition] for partition in partitions if partition in committed}

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.offsets_at`."""
        return {partition: self._offset_at(timestamp, self._partition(partition)) for partition in partitions}

    @staticmethod
    def _offset_at(timestamp: int, partition: _Partition) -> int:
        # Trimmed records may have had later timestamps than those kept, so the first high peak need not be the place.
        begin = bisect_left(partition.peaks, timestamp)
        later = (record.offset for record in partition.records[begin:] if record.timestamp >= timestamp)
        return next(later, partition.next)

    async def settle(self, group: str | None, member: int | None, topics: Sequence[str]) -> tuple[int, Step]:
        """See `EmbeddedLog.settle`."""
        for topic in topics:
            if topic not in self._topics:
                raise unknown_topic(topic)
        if group is None:
            return 0, Step(dict.fromkeys(self._partitions_of(topics), 0), [])
        members = self._group(group).members
        before = members.generation
        if member not in members.members:
            member = next(self._ids)
            members.join(member, topics, 0)
        subscribed = {topic for each in members.members.values() for topic in each.topics}
        step = members.settle(member, self._partitions_of(subscribed), 0)
        self.wake(regrouped=members.generation != before)
        return member, step

    async def release(self, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
        """See `EmbeddedLog.release`."""
        self._group(group).members.release(member, partitions)
        self.wake(regrouped=True)

    async def leave(self, group: str, member: int) -> None:
        """See `EmbeddedLog.leave`."""
        self._group(group).members.leave(member)
        self.wake(regrouped=True)

    async def fetch(self, positions: Mapping[TopicPartition, int], limit: int, start: Start) -> Fetched:
        """See `EmbeddedLog.fetch`."""
        await asyncio.sleep(0)  # nor somebody who only polls
        fetched: Fetched = []
        for name, position in positions.items():
            partition = self._partition(name)
            begin = place_of(position, partition.first, partition.next, start) - partition.first
            if found := partition.records[begin : begin + limit]:
                # Whoever changes the headers of a record changes his own copy.
                fetched.append((name, [record._replace(headers=list(record.headers)) for record in found]))
                limit -= len(found)
            if not limit:
                break
        return fetched

    async def register(self, transactional_id: str) -> int:
        """See `EmbeddedLog.register`."""
        self._producers[transactional_id] = epoch = self._producers.get(transactional_id, 0) + 1
        return epoch

    async def write(self, records: Sequence[NewRecord], commit: Commit | None, fence: Fence | None) -> None:
        """See `EmbeddedLog.write`."""
        await asyncio.sleep(0)  # somebody who only appends must not keep the event loop for himself
        if fence and self._producers[fence.transactional_id] != fence.epoch:
            raise fenced_producer(fence.transactional_id)
        if commit:
            for partition, (_, generation) in commit.offsets.items():
                if not self._group(commit.group).members.owns(commit.member, partition, generation):
                    raise not_owner(partition, commit.group)
        places = [self._place(record) for record in records]
        for record, place in zip(records, places, strict=True):
            self._append(record, place)
        if commit:
            self._group(commit.group).committed.update({p: offset for p, (offset, _) in commit.offsets.items()})
        if records:
            self.wake()

    def _place(self, record: NewRecord) -> TopicPartition:
        if record.topic not in self._topics:
            raise unknown_topic(record.topic)
        limits = self._partitions[TopicPartition(record.topic, 0)].limits
        return TopicPartition(record.topic, partition_of(record, limits, next(self._ids)))

    def _append(self, record: NewRecord, place: TopicPartition) -> None:
        partition = self._partitions[place]
        timestamp = self._now() if record.timestamp is None else record.timestamp
        stored = Record(*place, partition.next, timestamp, record.key, record.value, list(record.headers))
        partition.records.append(stored)
        partition.peaks.append(max(timestamp, partition.peaks[-1] if partition.peaks else 0))

    def _partition(self, name: TopicPartition) -> _Partition:
        if name not in self._partitions:
            raise unknown_partition(name)
        self._partitions[name].trim(self._now())
        return self._partitions[name]

    def _partitions_of(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic in topics for number in range(self._topics[topic].partitions)]

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())
