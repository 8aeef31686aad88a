"""What every conformance test of the log has at hand: one log, fresh names, and patience."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from choreo.log.port import Consumer, Log, NewRecord, Producer, Record, Topic, TopicPartition

PATIENCE = 30.0


@dataclass
class World:
    """A log under test.

    Attributes:
        open: makes another `Log` on the same records, not entered yet.
        make_topic: how a topic comes to be where the log cannot create it; always 4 partitions.
        session_timeout: seconds after which a silent member may be expelled.
        many: how many records are many for it.
    """

    name: str
    log: Log
    open: Callable[[], Log]
    session_timeout: float
    many: int
    command: Sequence[str] = ()
    make_topic: Callable[[str], None] | None = None
    _closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _filler: Producer | None = None

    async def topic(self, partitions: int = 4, **settings: str) -> str:
        """A new topic."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        if self.make_topic:
            self.make_topic(name)
        else:
            wanted = {name.replace("_", "."): value for name, value in settings.items()}
            topic = Topic(name=name, partitions=partitions, replication=1, settings=wanted)
            assert await self.log.create_topics([topic]) == [name]
        return name

    @staticmethod
    def group() -> str:
        """A new group's name."""
        return f"g-{uuid.uuid4().hex[:12]}"

    def consumer(self, *topics: str, log: Log | None = None, **options: object) -> Consumer:
        """A consumer that is closed when the test ends."""
        consumer = (log or self.log).consumer(topics, **options)
        self._closing.append(consumer.close)
        return consumer

    def producer(self, transactional_id: str | None = None, *, gapless: bool = False) -> Producer:
        """A producer that is closed when the test ends."""
        producer = self.log.producer(transactional_id=transactional_id, gapless=gapless)
        self._closing.append(producer.close)
        return producer

    async def fill(self, topic: str, count: int, partition: int = 0) -> list[bytes]:
        """Append numbered records to one partition; returns their values."""
        values = [b"%d" % n for n in range(count)]
        self._filler = self._filler or self.producer()  # one for all: Kafka's producers take their time to start
        await self._filler.append([record(topic, value=value, partition=partition) for value in values])
        return values

    async def close(self) -> None:
        """Close what the test has opened."""
        for close in reversed(self._closing):
            await close()

    @contextlib.asynccontextmanager
    async def process(self, topic: str, group: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A member in a process of its own; it is ready, and reads lines `poll` on its standard input."""
        program = [sys.executable, "-m", "tests.conformance.log_member", *self.command, topic, group]
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
        try:
            yield child
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


def record(
    topic: str,
    value: bytes | None = b"v",
    key: bytes | None = None,
    partition: int | None = None,
    timestamp: int | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> NewRecord:
    """A record to append."""
    return NewRecord(topic, key, value, list(headers), timestamp, partition)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - many different conditions, none of which tells when it comes true
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE} s in vain for {what or condition}") from None


async def collect(consumer: Consumer, count: int, max_records: int = 500) -> list[Record]:
    """Poll until there are `count` records; fails with what came instead."""
    records: list[Record] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while len(records) < count:
                # A poll gives what is there, which may be less than asked for: a small limit is for all polls together.
                records += await consumer.poll(
                    max_records if max_records > count else min(max_records, count - len(records)), 1.0
                )
    assert len(records) == count, f"{len(records)} records instead of {count}: {[r[:3] for r in records[:20]]}"
    return records


async def nothing_more(consumer: Consumer) -> None:
    """Check that no record comes."""
    assert await consumer.poll(500, 0.2) == []


async def settled(consumers: Sequence[Consumer], partitions: int) -> None:
    """Wait until these members share all partitions evenly."""
    low = partitions // len(consumers)
    high = low + bool(partitions % len(consumers))

    def even() -> bool:
        owned = [partition for consumer in consumers for partition in consumer.assignment]
        sizes = {len(consumer.assignment) for consumer in consumers}
        return len(owned) == len(set(owned)) == partitions and sizes <= {low, high}

    await until(even, f"an even assignment of {partitions} to {len(consumers)}")


def by_partition(records: Iterable[Record]) -> dict[int, list[Record]]:
    """Records of one topic, by partition, in the order they came."""
    ordered = sorted(records, key=lambda r: r.partition)  # a stable sort keeps their order
    return {number: list(each) for number, each in itertools.groupby(ordered, key=lambda r: r.partition)}


class Witness:
    """A listener that writes down what it is told.

    Args:
        starts: what `assigned` answers.
        on_revoked: runs inside `revoked`.
    """

    def __init__(
        self,
        starts: Mapping[TopicPartition, int] | None = None,
        on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None,
    ) -> None:
        self.calls: list[tuple[str, frozenset[TopicPartition]]] = []
        self.owned: set[TopicPartition] = set()
        self._starts = starts or {}
        self._on_revoked = on_revoked
        self._busy = False

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        async with self._call("assigned", partitions):
            assert not self.owned & set(partitions), "assigned what is owned already"
            self.owned |= set(partitions)
            return {partition: self._starts[partition] for partition in partitions if partition in self._starts}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        async with self._call("revoked", partitions):
            if self._on_revoked:
                await self._on_revoked(partitions)
            self._forget(partitions)

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        async with self._call("lost", partitions):
            self._forget(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        assert set(partitions) <= self.owned, "took away what was not given"
        self.owned -= set(partitions)

    @contextlib.asynccontextmanager
    async def _call(self, name: str, partitions: Sequence[TopicPartition]) -> AsyncIterator[None]:
        assert not self._busy, "two calls at once"
        assert partitions, "a call about nothing"
        self._busy = True
        await asyncio.sleep(0)
        self.calls.append((name, frozenset(partitions)))
        yield
        self._busy = False
