"""What the embedded logs (memory, SQLite) have in common: their consumers and producers."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from weakref import WeakSet

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, NotOwnerError, UnknownTopicError
from choreo.log.groups import Step
from choreo.log.port import Consumer, Listener, NewRecord, Producer, Record, Start, TopicPartition

_log = logging.getLogger(__name__)

_PAUSE_AFTER_TROUBLE = 1.0

Fetched: TypeAlias = "list[tuple[TopicPartition, list[Record]]]"


class Commit(NamedTuple):
    """Offsets to commit, with what proves the right to: the member and the generation of each claim."""

    group: str
    member: int
    offsets: dict[TopicPartition, tuple[int, int]]


class Fence(NamedTuple):
    """Which producer of a transactional id is writing; only the newest epoch may."""

    transactional_id: str
    epoch: int


class EmbeddedLog(ABC):
    """What both embedded logs are: a `Log` whose consumers and producers rest on a few operations.

    Any of these operations may raise LogUnavailableError: then it has done nothing, and may be repeated.

    Attributes:
        check_interval: a member looks at its group at least this often (seconds); None if it is always woken.
    """

    check_interval: float | None

    def __init__(self) -> None:
        self._consumers: WeakSet[EmbeddedConsumer] = WeakSet()

    def producer(self, *, transactional_id: str | None = None) -> Producer:
        """See `Log.producer`."""
        return EmbeddedProducer(self, transactional_id)

    def consumer(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        listener: Listener | None = None,
        start: Start = "earliest",
    ) -> Consumer:
        """See `Log.consumer`."""
        consumer = EmbeddedConsumer(self, topics, group, listener, start)
        self._consumers.add(consumer)
        return consumer

    def wake(self, *, regrouped: bool = False) -> None:
        """Let consumers look for records, and at their group too if one has changed. Called on the event loop."""
        for consumer in list(self._consumers):
            consumer.wake(regrouped=regrouped)

    async def close_consumers(self) -> None:
        """Close those that are still open."""
        await asyncio.gather(*(consumer.close() for consumer in list(self._consumers)))

    async def starts(
        self, group: str | None, partitions: Sequence[TopicPartition], start: Start
    ) -> dict[TopicPartition, int]:
        """Where to begin: at what the group has committed, else at the first or the next offset."""
        usual = await (self.beginning_offsets(partitions) if start == "earliest" else self.end_offsets(partitions))
        return usual | (await self.committed(group, partitions) if group is not None else {})

    @abstractmethod
    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.beginning_offsets`."""

    @abstractmethod
    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.end_offsets`."""

    @abstractmethod
    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """See `Log.committed`."""

    @abstractmethod
    async def settle(self, group: str | None, member: int | None, topics: Sequence[str]) -> tuple[int, Step]:
        """See `Group.settle`. Joins if there is no member, or no more; returns its id, and 0 without a group."""

    @abstractmethod
    async def release(self, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
        """See `Group.release`."""

    @abstractmethod
    async def leave(self, group: str, member: int) -> None:
        """See `Group.leave`."""

    @abstractmethod
    async def fetch(self, positions: Mapping[TopicPartition, int], limit: int, start: Start) -> Fetched:
        """The records from these positions on, at most `limit`; positions as `place_of` reads them."""

    @abstractmethod
    async def register(self, transactional_id: str) -> int:
        """The epoch of a new producer with this id; producers of older epochs are refused from now on."""

    @abstractmethod
    async def write(self, records: Sequence[NewRecord], commit: Commit | None, fence: Fence | None) -> None:
        """Append and commit all, or raise and do nothing. Returns when it is durable."""


@dataclass
class _Owned:
    """A partition as its owner sees it; `ready` once its listener has taken it."""

    generation: int
    position: int
    ready: bool = False
    revoking: bool = False
    paused: bool = False

    @property
    def readable(self) -> bool:
        return self.ready and not self.revoking and not self.paused


class EmbeddedConsumer:
    """A consumer of an embedded log; one task keeps its membership and calls its listener."""

    def __init__(
        self, log: EmbeddedLog, topics: Sequence[str], group: str | None, listener: Listener | None, start: Start
    ) -> None:
        self.log = log
        self._topics, self._group, self._listener, self._start = tuple(topics), group, listener, start
        self._member: int | None = None
        self._owned: dict[TopicPartition, _Owned] = {}
        self._failure: Exception | None = None
        self._closing = False
        self._arrived = asyncio.Event()
        self._regrouped = asyncio.Event()
        self._membership = asyncio.get_running_loop().create_task(self._keep_membership())

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions owned now."""
        return frozenset(partition for partition, owned in self._owned.items() if owned.ready)

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        """See `Consumer.poll`."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            if self._failure:
                raise self._failure
            if self._closing:
                raise LogError("this consumer is closed", remedy="poll before closing, or open another one")
            self._arrived.clear()
            records = await self._fetch(max_records)
            remaining = None if deadline is None else deadline - loop.time()
            if records or (remaining is not None and remaining <= 0) or not await _is_set(self._arrived, remaining):
                return records

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        try:
            await self.log.write([], self.fence(offsets), None)
        except NotOwnerError:
            self._regrouped.set()
            raise

    def fence(self, offsets: Mapping[TopicPartition, int]) -> Commit:
        """These offsets with this member's claims on their partitions.

        Raises:
            NotOwnerError: it owns one of them no more.
            LogError: it is in no group.
        """
        if self._group is None:
            raise LogError("a consumer without a group cannot commit", remedy="name a group")
        for partition in offsets:
            if partition not in self._owned:
                raise not_owner(partition, self._group)
        claims = {partition: (offset, self._owned[partition].generation) for partition, offset in offsets.items()}
        return Commit(self._group, self._member or 0, claims)

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        if partition not in self._owned:
            raise not_owner(partition, self._group)
        self._owned[partition].position = offset
        self._arrived.set()

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._set_paused(partitions, paused=True)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        self._set_paused(partitions, paused=False)
        self._arrived.set()

    def _set_paused(self, partitions: Iterable[TopicPartition], *, paused: bool) -> None:
        for partition in partitions:
            if partition in self._owned:
                self._owned[partition].paused = paused

    async def close(self) -> None:
        """See `Consumer.close`."""
        self._closing = True
        self._regrouped.set()
        self._arrived.set()
        await asyncio.wait({self._membership})

    def wake(self, *, regrouped: bool = False) -> None:
        """Look for records again, and at the group too if it has changed. Called on the event loop."""
        self._arrived.set()
        if regrouped:
            self._regrouped.set()

    async def _fetch(self, limit: int) -> list[Record]:
        wanted = {partition: owned.position for partition, owned in self._owned.items() if owned.readable}
        if not wanted:
            return []
        try:
            fetched = await self.log.fetch(wanted, limit, self._start)
        except LogUnavailableError as error:
            await self._wait_out(error)
            return []
        records: list[Record] = []
        for partition, found in fetched:
            owned = self._owned.get(partition)
            if owned and owned.readable and owned.position == wanted[partition]:
                owned.position = found[-1].offset + 1
                # The next poll begins with another partition: a busy one cannot starve the rest.
                self._owned[partition] = self._owned.pop(partition)
                records += found
        return records

    async def _wait_out(self, error: LogUnavailableError) -> None:
        _log.warning("consumer of %s waits: %s", ", ".join(self._topics), error)
        await asyncio.sleep(_PAUSE_AFTER_TROUBLE)
        self.wake(regrouped=True)

    async def _keep_membership(self) -> None:
        try:
            while not self._closing:
                self._regrouped.clear()
                await self._look()
                await _is_set(self._regrouped, self.log.check_interval)
            await self._give_back(list(self._owned))
        except Exception as error:  # noqa: BLE001 - a failing listener must reach whoever polls
            self._failure = error
        finally:
            self._owned.clear()
            self._arrived.set()
            await self._leave()

    async def _leave(self) -> None:
        if self._group is not None and self._member is not None:
            try:
                await self.log.leave(self._group, self._member)
            except LogUnavailableError as error:  # the others will notice that the heartbeats have ended
                _log.warning("a member of group %s could not say that it leaves: %s", self._group, error)

    async def _look(self) -> None:
        try:
            member, step = await self.log.settle(self._group, self._member, self._topics)
            await self._lose([p for p, owned in self._owned.items() if step.owned.get(p) != owned.generation])
            self._member, self._failure = member, None
            await self._give_back(step.revoke)
            await self._take({p: step.owned[p] for p in step.owned if p not in self._owned and p not in step.revoke})
        except LogUnavailableError as error:
            await self._wait_out(error)
        except UnknownTopicError as error:
            self._failure = error
            self._arrived.set()

    async def _lose(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            del self._owned[partition]
        if self._listener and partitions:
            await self._listener.lost(partitions)

    async def _give_back(self, partitions: list[TopicPartition]) -> None:
        known = [partition for partition in partitions if partition in self._owned]
        for partition in known:
            self._owned[partition].revoking = True
        if self._listener and known:
            await self._listener.revoked(known)
        for partition in known:
            del self._owned[partition]
        if partitions and self._group is not None and self._member is not None:
            await self.log.release(self._group, self._member, partitions)

    async def _take(self, claims: Mapping[TopicPartition, int]) -> None:
        if not claims:
            return
        starts = await self.log.starts(self._group, list(claims), self._start)
        for partition, generation in claims.items():
            self._owned[partition] = _Owned(generation, starts[partition])
        chosen = await self._listener.assigned(list(claims)) if self._listener else {}
        for partition in claims:
            owned = self._owned[partition]
            owned.position = chosen.get(partition, owned.position)
            owned.ready = True
        self._arrived.set()


class EmbeddedProducer:
    """A producer of an embedded log."""

    def __init__(self, log: EmbeddedLog, transactional_id: str | None) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._fence: Fence | None = None
        self._registering = asyncio.Lock()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def append(self, records: Sequence[NewRecord]) -> None:
        """See `Producer.append`."""
        await self._write(records, None)

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        offsets: Mapping[TopicPartition, int] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        """See `Producer.append_atomically`."""
        if self._transactional_id is None:
            raise ConfigurationError("this producer cannot append atomically", remedy="open it with a transactional_id")
        if not offsets:
            await self._write(records, None)
        elif isinstance(consumer, EmbeddedConsumer) and consumer.log is self._log:
            await self._write(records, consumer.fence(offsets))
        else:
            raise LogError("offsets are committed for a consumer's group", remedy="name a consumer of the same log")

    async def close(self) -> None:
        """See `Producer.close`."""
        self._closed = True
        await self._idle.wait()

    async def _write(self, records: Sequence[NewRecord], commit: Commit | None) -> None:
        if self._closed:
            raise LogError("this producer is closed", remedy="append before closing, or open another one")
        self._under_way += 1
        self._idle.clear()
        try:
            await self._log.write(records, commit, await self._fenced())
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _fenced(self) -> Fence | None:
        async with self._registering:
            if self._transactional_id is not None and self._fence is None:
                self._fence = Fence(self._transactional_id, await self._log.register(self._transactional_id))
            return self._fence


def fenced_producer(transactional_id: str) -> NotOwnerError:
    """The error for a producer whose transactional id has a newer one."""
    return NotOwnerError(
        f"a newer producer of transactional id {transactional_id} has fenced this one",
        remedy="stop here if another instance has taken over, else give each instance its own id",
    )


def not_owner(partition: TopicPartition, group: str | None) -> NotOwnerError:
    """The error for a partition that this consumer does not own."""
    return NotOwnerError(
        f"{partition.topic}/{partition.partition} is not this consumer's",
        why=f"group {group} has given it to another member, or has not given it out yet",
        remedy="drop the work on it: its owner reads it again from the committed offset",
    )


async def _is_set(event: asyncio.Event, timeout: float | None) -> bool:
    """Wait for the event, for `timeout` seconds or for ever; whether it came."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True
