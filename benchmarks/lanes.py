"""Concurrency that keeps order per key: 10,000 records, one partition, 1,000 keys, a handler that sleeps 0 to 5 ms.

    python benchmarks/lanes.py [--rounds N] [--json]

Seconds from the first handler's start to the last one's end. `by hand` is a dict of asyncio lanes over a plain consumer
that guarantees nothing: no commit, no retry, nothing stored. The order within each key is checked for all.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import random
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fastavro
import options
import structlog
from confluent_kafka import Consumer

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import Event, Service, Settings, connect
from choreo.log import Topic, open_log
from choreo.runtime.run import run_to_end, running, settle_garbage_collector

RECORDS, KEYS, CONCURRENCY = 10_000, 1_000, 1_000
TOPIC = f"bench-lanes-{uuid.uuid4().hex[:8]}"


class Moved(Event, topic=TOPIC, key="thing"):
    thing: str
    number: int
    place: str


class Watch:
    """Sleeps as every contestant's handler does, and notes the order."""

    def __init__(self) -> None:
        self.order: dict[str, list[int]] = defaultdict(list)
        self.first = self.last = 0.0
        self.count = 0
        self.done = asyncio.Event()
        chance = random.Random(4)
        self._sleeps = [chance.uniform(0, 0.005) for _ in range(RECORDS)]

    async def handle(self, moved: Moved) -> None:
        self.first = self.first or time.perf_counter()
        await asyncio.sleep(self._sleeps[moved.number])
        self.order[moved.thing].append(moved.number)
        self.count += 1
        if self.count == RECORDS:
            self.last = time.perf_counter()
            self.done.set()

    def seconds(self) -> float:
        if any(numbers != sorted(numbers) for numbers in self.order.values()):
            raise SystemExit("the order of a key was not kept")
        return self.last - self.first


async def fill(settings: Settings) -> None:
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=TOPIC, partitions=1)])
        async with connect(settings, log=log) as bus:
            for start in range(0, RECORDS, 1000):
                numbers = range(start, start + 1000)
                await bus.publish_many([Moved(thing=f"thing-{n % KEYS}", number=n, place="shelf 12") for n in numbers])


async def by_choreo(settings: Settings, *, transactional: bool) -> float:
    watch = Watch()
    service = Service(f"lanes-{uuid.uuid4().hex[:8]}", transactional=transactional, concurrency=CONCURRENCY)

    @service.on(Moved)
    async def handle(moved: Moved) -> None:
        await watch.handle(moved)

    async with running([service], settings):
        settle_garbage_collector(settings.max_in_flight)
        await watch.done.wait()
    return watch.seconds()


async def by_hand(settings: Settings) -> float:
    watch, lanes = Watch(), dict[bytes, list[Moved]]()
    read = reader(settings)
    bootstrap = settings.log.removeprefix("kafka://")
    client = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**client, "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    settle_garbage_collector(settings.max_in_flight)

    async def lane(key: bytes) -> None:
        waiting = lanes[key]
        while waiting:
            await watch.handle(waiting[0])
            waiting.pop(0)
        del lanes[key]

    tasks = set()
    while not watch.done.is_set():
        for message in consumer.consume(1000, 0):
            key = message.key()
            moved = read(message.value())
            if key in lanes:
                lanes[key].append(moved)
            else:
                lanes[key] = [moved]
                task = asyncio.create_task(lane(key))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.sleep(0)
    consumer.close()
    return watch.seconds()


def reader(settings: Settings) -> Any:
    schema = fastavro.parse_schema(json.loads((Path(settings.registry) / TOPIC / "Moved.avsc").read_text()))
    return lambda value: Moved.model_validate(fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None))


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    from tests.servers.kafka import KafkaServer

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-"))
        bootstrap = arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
        settings = Settings(
            log=f"kafka://{bootstrap}", store=f"sqlite:///{folder}/{{service}}.db", registry=f"{folder}/schemas",
            create_topics=True, max_in_flight=RECORDS,
        )  # fmt: skip
        asyncio.run(fill(settings))
        best: dict[str, float] = {}
        for _ in range(arguments.rounds):
            for name, run in {
                "by hand, guarantees nothing": lambda: by_hand(settings),
                "transactional": lambda: by_choreo(settings, transactional=True),
                "sqlite": lambda: by_choreo(settings, transactional=False),
            }.items():
                best[name] = min(best.get(name, 1e9), run_to_end(run()))
    return best


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    best = measure(arguments)
    options.tell(arguments, best, (f"{name:30} {seconds:.2f} s" for name, seconds in best.items()))


if __name__ == "__main__":
    main()
