"""What the embedded logs (memory, SQLite) have in common: their consumers, and what a topic lets in."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from choreo.errors import (
    ConfigurationError,
    LogError,
    LogUnavailableError,
    NotOwnerError,
    RecordTooLargeError,
    UnknownTopicError,
)
from choreo.log.groups import Step
from choreo.log.partitioning import partition_for
from choreo.log.port import Consumer, Listener, NewRecord, Record, Start, Topic, TopicPartition

_log = logging.getLogger(__name__)

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_MAX_MESSAGE_BYTES = "1048588"  # Kafka's default of max.message.bytes
_RECORD_OVERHEAD, _HEADER_OVERHEAD = 61 + 21, 10  # a batch of one record, as Kafka estimates it before it packs
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


class Backend(Protocol):
    """What a log does for its consumers and producers. LogUnavailableError from any of these means: try again later."""

    @property
    def check_interval(self) -> float | None:
        """A member looks at its group at least this often (seconds); None if it is always woken."""
        ...

    async def settle(self, group: str | None, member: int | None, topics: Sequence[str]) -> tuple[int, Step]:
        """See `Group.settle`; joins if there is no member, or not any more, and returns its id."""
        ...

    async def release(self, group: str, member: int, partitions: Sequence[TopicPartition]) -> None:
        """See `Group.release`."""
        ...

    async def leave(self, group: str, member: int) -> None:
        """See `Group.leave`."""
        ...

    async def starts(
        self, group: str | None, partitions: Sequence[TopicPartition], start: Start
    ) -> dict[TopicPartition, int]:
        """Where the group has committed, else the first or the next offset."""
        ...

    async def fetch(self, positions: Mapping[TopicPartition, int], limit: int, start: Start) -> Fetched:
        """The records from these positions on, at most `limit`; positions as `place_of` reads them."""
        ...

    async def register(self, transactional_id: str) -> int:
        """The epoch of a new producer with this id; producers of older epochs are refused from now on."""
        ...

    async def write(self, records: Sequence[NewRecord], commit: Commit | None, fence: Fence | None) -> None:
        """Append and commit all, or raise and do nothing. Returns when it is durable."""
        ...


class Limits(NamedTuple):
    """What a topic's settings mean to an embedded log; `retention_ms` is None where everything is kept."""

    partitions: int
    max_message_bytes: int
    retention_ms: int | None


def limits_of(topic: Topic) -> Limits:
    """Read a topic's settings.

    Raises:
        ConfigurationError: its name, partition count or a setting is not legal.
    """
    if not _TOPIC.match(topic.name) or topic.name in {".", ".."}:
        raise ConfigurationError(
            f"topic {topic.name!r} has no legal Kafka name", remedy="use 1 to 249 letters, digits, '.', '_' or '-'"
        )
    if topic.partitions < 1:
        raise ConfigurationError(
            f"topic {topic.name} asks for {topic.partitions} partitions", remedy="ask for 1 or more"
        )
    try:
        max_message_bytes = int(topic.settings.get("max.message.bytes", _MAX_MESSAGE_BYTES))
        retention_ms = int(topic.settings.get("retention.ms", "-1"))
    except ValueError as error:
        raise ConfigurationError(
            f"topic {topic.name} has a setting that is no number", why=str(error), remedy="write it in digits"
        ) from None
    return Limits(topic.partitions, max_message_bytes, None if retention_ms < 0 else retention_ms)


def unknown_topic(topic: str) -> UnknownTopicError:
    """The error for a topic that does not exist."""
    return UnknownTopicError(f"topic {topic} does not exist", remedy="create it: choreo topics create")


def unknown_partition(partition: TopicPartition) -> UnknownTopicError:
    """The error for a partition that does not exist."""
    return UnknownTopicError(
        f"topic {partition.topic} has no partition {partition.partition}",
        remedy="see its partitions: choreo topics list",
    )


def partition_of(record: NewRecord, limits: Limits, turn: int) -> int:
    """Where a record goes.

    Args:
        record: the record.
        limits: of its topic.
        turn: decides for records without a key; any number.

    Raises:
        RecordTooLargeError, UnknownTopicError: its topic does not take it.
    """
    size = _RECORD_OVERHEAD + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value) + _HEADER_OVERHEAD
    if size > limits.max_message_bytes:
        raise RecordTooLargeError(
            f"a record of {size:,} bytes is too large for topic {record.topic}",
            why=f"its max.message.bytes is {limits.max_message_bytes:,}",
            remedy="send a reference to the data instead of the data, or raise max.message.bytes on the topic",
        )
    if record.partition is not None:
        if not 0 <= record.partition < limits.partitions:
            raise unknown_partition(TopicPartition(record.topic, record.partition))
        return record.partition
    if record.key is not None:
        return partition_for(record.key, limits.partitions)
    return turn % limits.partitions


def place_of(position: int, first: int, end: int, start: Start) -> int:
    """Where reading goes on: `position` if the log reaches so far, else as `start` says; trimmed records are passed over."""
    if position > end:
        return first if start == "earliest" else end
    return max(position, first)


@dataclass
class _Owned:
    """A partition as its owner sees it. `ready` once the listener has been told, until it is told to give it back."""

    generation: int
    position: int
    ready: bool = False
    revoking: bool = False
    paused: bool = False


class EmbeddedConsumer:
    """A consumer over a `Backend`; one task keeps its membership and calls its listener."""

    def __init__(
        self, backend: Backend, topics: Sequence[str], group: str | None, listener: Listener | None, start: Start
    ) -> None:
        self._backend = backend
        self._topics = tuple(topics)
        self._group = group
        self._listener = listener
        self._start = start
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
            if records or not await _is_set(self._arrived, remaining):
                return records

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        try:
            await self._backend.write([], self.fence(offsets), None)
        except NotOwnerError:
            self._regrouped.set()
            raise

    def fence(self, offsets: Mapping[TopicPartition, int]) -> Commit:
        """These offsets with this member's claims on their partitions.

        Raises:
            NotOwnerError: it owns one of them no more.
            ConfigurationError: it is in no group.
        """
        if self._group is None:
            raise ConfigurationError("a consumer without a group cannot commit", remedy="name a group")
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
        wanted = {
            partition: owned.position
            for partition, owned in self._owned.items()
            if owned.ready and not owned.revoking and not owned.paused
        }
        if not wanted:
            return []
        try:
            fetched = await self._backend.fetch(wanted, limit, self._start)
        except LogUnavailableError as error:
            await self._wait_out(error)
            return []
        records: list[Record] = []
        for partition, found in fetched:
            owned = self._owned.get(partition)
            if owned and owned.ready and not (owned.revoking or owned.paused) and owned.position == wanted[partition]:
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
                await _is_set(self._regrouped, self._backend.check_interval)
            if self._listener and self._owned:
                await self._listener.revoked(list(self._owned))
        except Exception as error:  # noqa: BLE001 - a failing listener must reach whoever polls
            self._failure = error
        finally:
            self._owned.clear()
            self._arrived.set()
            await self._leave()

    async def _leave(self) -> None:
        if self._group is not None and self._member is not None:
            try:
                await self._backend.leave(self._group, self._member)
            except LogUnavailableError as error:  # the others will notice that the heartbeats have ended
                _log.warning("a member of group %s could not say that it leaves: %s", self._group, error)

    async def _look(self) -> None:
        try:
            member, step = await self._backend.settle(self._group, self._member, self._topics)
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
            await self._backend.release(self._group, self._member, partitions)

    async def _take(self, claims: Mapping[TopicPartition, int]) -> None:
        if not claims:
            return
        starts = await self._backend.starts(self._group, list(claims), self._start)
        for partition, generation in claims.items():
            self._owned[partition] = _Owned(generation, starts[partition])
        chosen = await self._listener.assigned(list(claims)) if self._listener else {}
        for partition in claims:
            owned = self._owned[partition]
            owned.position = chosen.get(partition, owned.position)
            owned.ready = True
        self._arrived.set()


class EmbeddedProducer:
    """A producer over a `Backend`."""

    def __init__(self, backend: Backend, transactional_id: str | None) -> None:
        self._backend = backend
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
        if offsets and not isinstance(consumer, EmbeddedConsumer):
            raise ConfigurationError(
                "offsets are committed for a consumer's group", remedy="name this log's consumer too"
            )
        commit = consumer.fence(offsets) if offsets and isinstance(consumer, EmbeddedConsumer) else None
        await self._write(records, commit)

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
            await self._backend.write(records, commit, await self._fenced())
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _fenced(self) -> Fence | None:
        async with self._registering:
            if self._transactional_id is not None and self._fence is None:
                self._fence = Fence(self._transactional_id, await self._backend.register(self._transactional_id))
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
