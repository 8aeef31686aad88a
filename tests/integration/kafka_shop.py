"""One service on Kafka, with topics of its own for each test: it answers each order with a payment.

python -m tests.integration.kafka_shop RUN SETTINGS-AS-JSON     # a transactional instance as a process of its own
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from choreo import Event, Service, Settings, connect
from choreo.log import Log, Topic, TopicPartition, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.run import running
from choreo.wire import Codec, open_registry

KEYS = 5
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
_PATIENCE = 100
"""Seconds. After the last of many quick transactions was committed, readers have waited for up to 35 for its records, with
the broker idle; it is not known yet what they wait for."""
_PACE = 0.2
"""Seconds between orders that come little by little. Connecting anew for each lot took a minute on a busy machine."""
BOTH = {"classic": QUICK, "consumer": {"group.protocol": "consumer"}}


class Shop:
    """The service and its topics on one broker.

    Args:
        kafka: client settings of the service's instances.
    """

    def __init__(self, bootstrap: str, folder: Path, kafka: dict[str, str], run: str = "") -> None:
        self.run = run or uuid.uuid4().hex[:8]
        self.settings = Settings(
            log=f"kafka://{bootstrap}",
            store=f"sqlite:///{folder}/{{service}}.db?synchronous=normal",
            registry=str(folder / "schemas"),
            kafka=kafka,
            create_topics=True,
            stop_grace=5.0,
        )
        self.name = f"payments-{self.run}"

        class Ordered(Event, topic=f"orders-{self.run}", key="id"):
            id: str
            n: int

        class Charged(Event, topic=f"charges-{self.run}", key="id"):
            id: str
            n: int

        self.ordered, self.charged = Ordered, Charged

    def service(self, *, transactional: bool = True) -> Service:
        """The service; each call makes another of the same name."""
        service, ordered, charged = Service(self.name, transactional=transactional), self.ordered, self.charged

        async def charge(order: Any) -> Any:
            await asyncio.sleep(0.001)
            return charged(id=order.id, n=order.n)

        charge.__annotations__ = {"order": ordered, "return": charged}
        service.on(ordered)(charge)
        return service

    def running(self, *, transactional: bool = True, **kafka: str) -> AbstractAsyncContextManager[dict[str, Instance]]:
        """An instance in this process, with these client settings too (dots as underscores)."""
        more = {name.replace("_", "."): value for name, value in kafka.items()}
        settings = self.settings.model_copy(update={"kafka": self.settings.kafka | more})
        return running([self.service(transactional=transactional)], settings)

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        """A transactional instance as a process of its own."""
        command = [sys.executable, "-m", "tests.integration.kafka_shop", self.run, self.settings.model_dump_json()]
        child = subprocess.Popen(command)
        try:
            yield child
        finally:
            child.kill()
            child.wait()

    async def make_topics(self) -> None:
        """Create what is not there yet, so that no test waits for it."""
        async with open_log(self.settings.log) as log:
            names = (f"orders-{self.run}", f"charges-{self.run}", f"dlq.{self.name}", f"retry.{self.name}")
            await log.create_topics([Topic(name=name) for name in names])

    async def publish(self, first: int, last: int, step: int = 0) -> None:
        """Publish these orders, all at once or so many at a time."""
        async with connect(self.settings, source="test") as bus:
            for start in range(first, last, step or last - first):
                orders = range(start, min(last, start + step) if step else last)
                await bus.publish_many([self.ordered(id=f"k{n % KEYS}", n=n) for n in orders])
                await asyncio.sleep(_PACE if step else 0)

    async def charges(self, log: Log) -> list[int]:
        """The numbers of all payments, in the order of their partitions."""
        places = [TopicPartition(f"charges-{self.run}", n) for n in range(4)]
        ends, codec, found = await log.end_offsets(places), Codec(open_registry(self.settings.registry)), []
        reader = log.consumer([places[0].topic])
        left = {at for at in places if ends[at]}
        while left:
            for record in await reader.poll(500, 0.2):
                await codec.load(int.from_bytes((record.value or b"")[1:5], "big"))
                found.append((record.partition, record.offset, codec.decode_any(record)[1]["n"]))
            reached = await self._positions(reader, left)
            left = {at for at in left if reached.get(at, 0) < ends[at]}
        await reader.close()
        return [n for _, _, n in sorted(found)]

    async def _positions(self, reader: Any, places: set[TopicPartition]) -> dict[TopicPartition, int]:
        """How far a reader has come, transaction markers included."""
        import confluent_kafka as ck

        wanted = [ck.TopicPartition(*at) for at in places]
        known = await reader._call(lambda client: client.position(wanted))
        return {TopicPartition(one.topic, one.partition): one.offset for one in known}

    async def handled(self, count: int) -> list[int]:
        """Wait until so many different orders are paid; the payments' numbers, copies included."""
        async with open_log(self.settings.log) as log, asyncio.timeout(_PATIENCE):
            while len(set(found := await self.charges(log))) < count:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.2)
        return found


def in_order(numbers: list[int], count: int) -> bool:
    """Whether these are all, each key's in order."""
    keys = [[n for n in numbers if n % KEYS == key] for key in range(KEYS)]
    return keys == [list(range(key, count, KEYS)) for key in range(KEYS)]


async def main(run: str, settings: str) -> None:
    """Run until killed."""
    given = Settings(**json.loads(settings))
    shop = Shop(given.log.removeprefix("kafka://"), Path(given.registry).parent, given.kafka, run)
    async with shop.running():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
