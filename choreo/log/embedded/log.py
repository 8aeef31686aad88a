"""What the embedded logs (memory, SQLite) have in common: all but where their tables are and who works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from choreo.errors import ConfigurationError
from choreo.log.embedded.consumer import EmbeddedConsumer
from choreo.log.embedded.producer import EmbeddedProducer, GaplessProducer
from choreo.log.port import Consumer, Listener, Position, Producer, Start, Topic, TopicPartition
from choreo.log.tables import Tables

P = ParamSpec("P")
T = TypeVar("T")


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
        ends: bool = False,  # noqa: ARG002 - there is no gap at the end
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

    async def members(self, group: str) -> int:
        return await self.read(Tables.members, group)

    async def offsets_at(self, timestamp: int, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self.read(Tables.offsets_at, timestamp, partitions)

    def wake(self, topics: Collection[str] | None = None, *, regrouped: bool = False) -> None:
        """Let consumers look for records, and at their group too if one has changed. Called on the event loop.

        Args:
            topics: where there are new ones; all unless given.
        """
        for consumer in self.consumers:
            if topics is None or not consumer.topics.isdisjoint(topics):
                consumer.wake(regrouped=regrouped)

    async def close_consumers(self) -> None:
        """Close those that are still open."""
        await asyncio.gather(*(consumer.close() for consumer in self.consumers))
