"""What the embedded logs (memory, SQLite) have in common: all but where their tables are and who works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from choreo.errors import ConfigurationError, LogError, LogUnavailableError
from choreo.log.groups import Step
from choreo.log.partitioning import not_owner
from choreo.log.port import Consumer, Listener, NewRecord, Position, Producer, Record, Start, Topic, TopicPartition
from choreo.log.tables import Commit, Tables

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_PAUSE_AFTER_TROUBLE = 1.0


class Runner(Protocol):
    """Who works on the log's tables, one transaction after the other."""

    async def run(self, operation: Callable[Concatenate[Tables, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation. A LogError that it raises must come before its first write.

        Raises:
            LogUnavailableError: it has changed nothing, unless the commit itself failed.
        """


class EmbeddedLog:
    """Implements `Log` but for being entered.

    Args:
        reader, writer: run the operations that only read, and the others.

    Attributes:
        check_interval: a member looks at its group at least this often (seconds); None if it is always woken.
        consumers: those that are still open, in the order they were made.
    """

    check_interval: float | None

    def __init__(self, reader: Runner, writer: Runner) -> None:
        self.read, self.write = reader.run, writer.run
        self.consumers: list[EmbeddedConsumer] = []

    def producer(self, *, transactional_id: str | None = None, gapless: bool = False) -> Producer:
        return GaplessProducer(self) if gapless else EmbeddedProducer(self, transactional_id)

    def consumer(
        self,
        topics: Sequence[str],
        *,
        group: str | None = None,
        listener: Listener | None = None,
        start: Start = "earliest",
    ) -> Consumer:
        consumer = EmbeddedConsumer(self, topics, group, listener, start)
        self.consumers.append(consumer)
        return consumer

    async def topics(self) -> dict[str, Topic]:
        return await self.read(Tables.topics)

    async def create_topics(self, topics: Sequence[Topic]) -> list[str]:
        return await self.write(Tables.create_topics, topics)

    async def settings_of(self, topics: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        known = await self.topics()
        return {name: known[name].settings for name in topics}

    async def change_topic(self, topic: Topic) -> None:
        remedy = "begin with a new log, or use Kafka"
        raise ConfigurationError(f"topic {topic.name} of an embedded log cannot be changed", remedy=remedy)

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: first for partition, (first, _) in (await self.read(Tables.bounds, partitions)).items()}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: end for partition, (_, end) in (await self.read(Tables.bounds, partitions)).items()}

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        return await self.read(Tables.committed, group, partitions)

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self.read(Tables.offsets_at, timestamp, partitions)

    def wake(self, *, regrouped: bool = False) -> None:
        """Let consumers look for records, and at their group too if one has changed. Called on the event loop."""
        for consumer in self.consumers:
            consumer.wake(regrouped=regrouped)

    async def close_consumers(self) -> None:
        """Close those that are still open."""
        await asyncio.gather(*(consumer.close() for consumer in self.consumers))


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
    """Implements `Consumer`; one task keeps its membership and calls its listener.

    Attributes:
        looked: when it last looked at its group (monotonic seconds).
    """

    def __init__(
        self, log: EmbeddedLog, topics: Sequence[str], group: str | None, listener: Listener | None, start: Start
    ) -> None:
        self.log = log
        self._topics, self._group, self._listener, self._start = tuple(topics), group, listener, start
        self._member: int | None = None
        self.looked = time.monotonic()
        self._owned: dict[TopicPartition, _Owned] = {}
        self._failure: Exception | None = None
        self._closing = False
        self._arrived = asyncio.Event()
        self._regrouped = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._membership = self._loop.create_task(self._keep_membership())

    @property
    def membership(self) -> tuple[str, int]:
        """Its group and its id there; the id 0 belongs to nobody."""
        return self._group or "", self._member or 0

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(partition for partition, owned in self._owned.items() if owned.ready)

    @property
    def joined(self) -> bool:
        return self._group is None or self._member is not None

    async def poll(self, max_records: int = 500, timeout: float | None = None) -> list[Record]:
        deadline = None if timeout is None else self._loop.time() + timeout
        while True:
            if self._failure:
                raise self._failure
            if self._closing:
                raise LogError("this consumer is closed", remedy="poll before closing, or open another one")
            self._arrived.clear()
            records = await self._fetch(max_records)
            if records or (deadline is not None and deadline <= self._loop.time()):
                return records
            await _wait(self._arrived, deadline)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        positions = {partition: Position(offset) for partition, offset in offsets.items()}
        await self.log.write(Tables.write, [], self.claim(positions), None)

    def claim(self, positions: Mapping[TopicPartition, Position], *, taken: bool = False) -> Commit:
        """These positions with this member's claims on their partitions.

        Args:
            taken: whether its listener must have taken them: what it did under an earlier claim is not for this one.

        Raises:
            NotOwnerError: it owns one of them no more.
            LogError: it is in no group.
        """
        if self._group is None:
            raise LogError("a consumer without a group cannot commit", remedy="name a group")
        if taken and (early := positions.keys() - self.assignment):
            raise not_owner(min(early), self._group)
        claims = {partition: (position, self._own(partition).generation) for partition, position in positions.items()}
        return Commit(*self.membership, claims)

    def _own(self, partition: TopicPartition) -> _Owned:
        if partition not in self._owned:
            raise not_owner(partition, self._group)
        return self._owned[partition]

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        self._own(partition).position = offset
        self._arrived.set()

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in self._owned.keys() & set(partitions):
            self._owned[partition].paused = True

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in self._owned.keys() & set(partitions):
            self._owned[partition].paused = False
        self._arrived.set()

    async def close(self) -> None:
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
            fetched = await self.log.read(Tables.fetch, wanted, limit, self._start)
        except LogUnavailableError as error:
            await self._wait_out(error)
            return []
        records: list[Record] = []
        for partition, (next_, found) in fetched.items():
            owned = self._owned.get(partition)
            if owned and owned.readable and owned.position == wanted[partition]:
                owned.position = next_
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
                interval = self.log.check_interval
                await _wait(self._regrouped, None if interval is None else self._loop.time() + interval)
            await self._give_back(list(self._owned))
        except Exception as error:  # noqa: BLE001 - an unknown topic or a failing listener must reach whoever polls
            self._failure = error
            if self._closing:  # nobody polls any more
                _log.warning("consumer of %s did not give back cleanly: %s", ", ".join(self._topics), error)
        finally:
            self._owned.clear()
            self._arrived.set()
            await self._leave()
            self.log.consumers.remove(self)

    async def _leave(self) -> None:
        if self._member:
            try:
                await self.log.write(Tables.leave, *self.membership)
            except LogError as error:  # the others will notice that the heartbeats have ended
                _log.warning("a member of group %s could not say that it leaves: %s", self._group, error)

    async def _look(self) -> None:
        try:
            owned, revoke = await self._settle()
            await self._lose([p for p in self._owned if owned.get(p) != self._owned[p].generation])
            await self._give_back(revoke)
            await self._take({p: owned[p] for p in owned if p not in self._owned and p not in revoke})
        except LogUnavailableError as error:
            if self._failure is error:
                raise
            await self._wait_out(error)

    async def _told(self, call: Awaitable[T]) -> T:
        """What the listener answers. What it raises ends the consumer, even if it looks like trouble of the log."""
        try:
            return await call
        except Exception as error:
            self._failure = error
            raise

    async def _settle(self) -> Step:
        self.looked = time.monotonic()
        if self._group is None:
            return Step(dict.fromkeys(await self.log.read(Tables.partitions, self._topics), 0), [])
        self._member, step = await self.log.write(Tables.settle, self._group, self._member, self._topics)
        return step

    async def _lose(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            del self._owned[partition]
        if self._listener and partitions:
            await self._told(self._listener.lost(partitions))

    async def _give_back(self, partitions: list[TopicPartition]) -> None:
        known = [partition for partition in partitions if partition in self._owned]
        for partition in known:
            self._owned[partition].revoking = True
        if self._listener and known:
            await self._told(self._listener.revoked(known))
        for partition in known:
            del self._owned[partition]
        if partitions and self._member:
            await self.log.write(Tables.release, *self.membership, partitions)

    async def _take(self, claims: Mapping[TopicPartition, int]) -> None:
        if not claims:
            return
        bounds = await self.log.read(Tables.bounds, claims)
        committed = await self.log.read(Tables.committed, self._group, claims) if self._group is not None else {}
        for partition, generation in claims.items():
            first, end = bounds[partition]
            usual = first if self._start == "earliest" else end
            self._owned[partition] = _Owned(generation, committed.get(partition, Position(usual)).offset)
        chosen = await self._told(self._listener.assigned(list(claims))) if self._listener else {}
        for partition in claims:
            owned = self._owned[partition]
            owned.position = chosen.get(partition, owned.position)
            owned.ready = True
        self._arrived.set()


class EmbeddedProducer:
    """Implements `Producer`."""

    def __init__(self, log: EmbeddedLog, transactional_id: str | None = None) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._fence: tuple[str, int] | None = None
        self._registering = asyncio.Lock()
        self._closed = False

    async def append(self, records: Sequence[NewRecord]) -> None:
        await self._write(records, None)

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        positions: Mapping[TopicPartition, Position] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        if self._transactional_id is None:
            raise ConfigurationError("this producer cannot append atomically", remedy="open it with a transactional_id")
        if not positions:
            await self._write(records, None)
        elif isinstance(consumer, EmbeddedConsumer) and consumer.log is self._log:
            await self._write(records, consumer.claim(positions, taken=True))
        else:
            raise LogError("positions are committed for a consumer's group", remedy="name a consumer of the same log")

    async def close(self) -> None:
        self._closed = True
        # The log works in order: when this has had its turn, so has everything begun before.
        async with self._registering:
            with contextlib.suppress(LogError):
                await self._log.write(lambda _: None)

    async def _write(self, records: Sequence[NewRecord], commit: Commit | None) -> None:
        if self._closed:
            raise LogError("this producer is closed", remedy="append before closing, or open another one")
        await self._log.write(Tables.write, records, commit, await self._fenced())
        if records:
            self._log.wake()

    async def _fenced(self) -> tuple[str, int] | None:
        async with self._registering:
            if self._transactional_id is not None and self._fence is None:
                epoch = await self._log.write(Tables.register, self._transactional_id)
                self._fence = (self._transactional_id, epoch)
            return self._fence


class GaplessProducer(EmbeddedProducer):
    """A producer that the first failure breaks; appends that overlap are done one after the other."""

    def __init__(self, log: EmbeddedLog) -> None:
        super().__init__(log)
        self._turn = asyncio.Lock()
        self._cause: LogError | None = None

    async def append(self, records: Sequence[NewRecord]) -> None:
        async with self._turn:
            if self._cause:
                why = str(self._cause)
                raise LogUnavailableError("this producer is broken", why=why, remedy="repeat with a new one")
            try:
                await super().append(records)
            except LogError as error:
                self._cause = error
                raise


async def _wait(event: asyncio.Event, until: float | None) -> None:
    """Wait for the event, until this time of the event loop or for ever."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await event.wait()
