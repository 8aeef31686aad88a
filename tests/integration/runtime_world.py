"""Services at work over an embedded log, looked at from outside: what is in the topics, what is in the stores."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

from choreo import Event, Failure, Retry, Service, Settings, connect
from choreo.log.port import Log, Record, TopicPartition
from choreo.runtime.instance import Instance
from choreo.runtime.run import running
from choreo.wire import Codec, open_registry
from tests.support import eventually

AT_ONCE = Retry(attempts=3, delay=0, max_delay=0)
"""Three attempts without a wait."""


class Placed(Event, topic="orders", key="id"):
    """An order, the first event of most sagas here."""

    id: str
    n: int = 0


class Paid(Event, topic="payments", key="id"):
    """A payment."""

    id: str
    n: int = 0


class Declined(Failure, topic="payments", key="id"):
    """No payment."""

    id: str


class Shipped(Event, topic="shipments", key="id"):
    """A shipment."""

    id: str
    n: int = 0


TABLES = "CREATE TABLE IF NOT EXISTS effects (id TEXT, n INTEGER)"
"""No unique column: a doubled effect shows."""


class World:
    """One log, one folder for stores and schemas, and whoever works there.

    Attributes:
        log: shared by all services; connected.
        folder: where stores and schemas are.
    """

    def __init__(self, log: Log, folder: Path) -> None:
        self.log = log
        self.folder = folder

    def settings(self, **changes: Any) -> Settings:
        """Where things are here; a stop does not wait long."""
        places = {
            "log": "memory://",
            "store": f"sqlite:///{self.folder}/{{service}}.db?synchronous=normal",
            "registry": str(self.folder / "schemas"),
            "stop_grace": 5.0,
        }
        return Settings(**(places | changes))

    def running(self, *services: Service, **changes: Any) -> AbstractAsyncContextManager[dict[str, Instance]]:
        """These services at work."""
        return running(services, self.settings(**changes), log=self.log)

    async def publish(self, *events: Event) -> list[str]:
        """Publish events, each the start of a saga."""
        async with connect(self.settings(), source="test", log=self.log) as bus:
            return await bus.publish_many(events)

    async def records(self, topic: str) -> list[Record]:
        """All that is in a topic, partition by partition."""
        topics = await self.log.topics()
        partitions = [TopicPartition(topic, number) for number in range(topics[topic].partitions)]
        end = await self.log.end_offsets(partitions)
        consumer = self.log.consumer([topic])
        found: list[Record] = []
        while len(found) < sum(end.values()):
            found += await consumer.poll(timeout=5)
        await consumer.close()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def events(self, topic: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """The `ce_*` headers (without the prefix) and the data of each record of a topic."""
        registry = open_registry(str(self.folder / "schemas"))
        codec = Codec(registry)
        found = []
        for record in await self.records(topic):
            await codec.load(int.from_bytes((record.value or b"")[1:5], "big"))
            about = {name.removeprefix("ce_"): text.decode() for name, text in record.headers}
            found.append((about, codec.decode_any(record)[1]))
        return found

    async def letters(self, service: str) -> list[tuple[dict[str, str], Record]]:
        """A service's dead letters with their headers as text."""
        return [
            ({name: text.decode(errors="replace") for name, text in record.headers}, record)
            for record in await self.records(f"dlq.{service}")
        ]

    def rows(self, service: str, sql: str = "SELECT id, n FROM effects ORDER BY rowid") -> list[tuple[Any, ...]]:
        """What is durable in a service's store."""
        with closing(sqlite3.connect(f"file:{self.folder}/{service}.db?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(sql).fetchall()

    async def read_to_the_end(self, service: Service) -> None:
        """Wait until the store knows every record of the service's topics as done."""
        topics = service.topics

        async def is_done() -> bool:
            known = await self.log.topics()
            everything = [TopicPartition(topic, n) for topic in topics for n in range(known[topic].partitions)]
            end = {at: offset for at, offset in (await self.log.end_offsets(everything)).items() if offset}
            try:
                progress = self.rows(service.name, "SELECT topic, partition, watermark, done FROM choreo_progress")
            except sqlite3.OperationalError:  # the service has not opened its store yet
                return False
            return {(*at, offset, "") for at, offset in end.items()} <= set(progress)

        await eventually(is_done, lambda: f"{service.name} has read to the end")


def unique(events: Sequence[tuple[dict[str, str], dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Events by id: what a service with an inbox sees."""
    return {about["id"]: data for about, data in events}


def effects_service(name: str = "payments", **options: Any) -> Service:
    """A service that writes each order into its table and emits a payment."""
    service = Service(name, tables=TABLES, **options)

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Any) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    return service


def owned(instance: Instance) -> list[TopicPartition]:
    """The partitions an instance owns, without those of its retry topic."""
    return [at for at in instance._owned if not at.topic.startswith("retry.")]


async def crash(instance: Instance) -> None:
    """End an instance as a SIGKILL would, as far as store and log can tell: nothing more is committed or published."""
    for task in instance._tasks:
        task.cancel()
    await asyncio.gather(*instance._tasks, return_exceptions=True)

    async def nothing(_: object) -> None: ...

    instance._ownership.revoked = nothing  # type: ignore[method-assign]
    instance._consumer._membership.cancel()  # it may stand still inside `assigned`
    await instance._consumer.close()
    await instance._store.close()
    instance._running = False
