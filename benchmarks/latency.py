"""How long does a saga of five hops take, from its first event's publication to its fifth handler?

    python benchmarks/latency.py [--seconds N] [--json]

Five services, each with an SQLite store, pass an event on, 200 and 1,000 sagas a second: on real Kafka, on the embedded
log, and beside them a chain written by hand: five threads, each with a consumer, a producer and one SQLite transaction
(inbox row, synchronous=FULL) a hop. Sagas begin at even intervals, whatever became of those before. Milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import options
import structlog
from confluent_kafka import Consumer, Producer
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import Event, Service, Settings, connect
from choreo.log import Topic, open_log
from choreo.runtime.run import run_to_end, running, settle_garbage_collector

HOPS = 5
WARM_UP = 6.0
"""Seconds of sagas that nobody counts, for all alike: fresh stores, topics and producers are slower at first."""
BROKER_WARM_UP = 30.0
"""Seconds of work that nobody measures: a broker just started keeps more than a core busy with its own compiler."""


class Saga(BaseModel):
    saga: str
    begun: float
    text: str = "a parcel for Ada Lovelace, 12 St James's Square, London"


def hops(run: str) -> list[Any]:
    """The events of a run, with topics of its own: services read from the beginning."""
    return [hop(run, number) for number in range(HOPS)]


def hop(run: str, number: int) -> type[Event]:
    class Hop(Event, topic=f"bench-{run}-hop-{number}", key="saga", name=f"Hop{number}"):
        saga: str
        begun: float
        text: str = Saga.model_fields["text"].default

    return Hop


HAND_TOPICS = [f"by-hand-{uuid.uuid4().hex[:8]}-{number}" for number in range(HOPS)]


class Times:
    """How long sagas took, without those of the warm-up."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.begin = time.monotonic() + WARM_UP

    def end(self, begun: float) -> None:
        if begun >= self.begin:
            self.taken.append((time.monotonic() - begun) * 1000)

    def percentiles(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.taken, n=100)
        return {"sagas": len(self.taken), "p50": cuts[49], "p99": cuts[98]}


def chain(events: list[Any], number: int, name: str, times: Times) -> Service:
    service = Service(f"{name}-{number}")
    if number == HOPS - 1:

        async def last(event: Event) -> None:
            times.end(event.begun)  # type: ignore[attr-defined]

        last.__annotations__ = {"event": events[number], "return": None}
        service.on(events[number])(last)
        return service
    following = events[number + 1]

    async def onward(event: Event) -> Event:
        passed: Event = following(saga=event.saga, begun=event.begun, text=event.text)  # type: ignore[attr-defined]
        return passed

    onward.__annotations__ = {"event": events[number], "return": following}
    service.on(events[number])(onward)
    return service


async def by_choreo(settings: Settings, rate: int, seconds: float) -> dict[str, float]:
    run = uuid.uuid4().hex[:8]
    events = hops(run)
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=event.contract.topics[0]) for event in events])
        times = Times()
        services = [chain(events, number, f"hop-{run}", times) for number in range(HOPS)]
        async with running(services, settings, log=log), connect(settings, log=log) as bus:
            await bus.publish(events[0](saga="first", begun=0.0))
            await asyncio.sleep(1)
            settle_garbage_collector(HOPS * settings.max_in_flight)
            times.begin = time.monotonic() + WARM_UP
            publishing, start = set(), time.monotonic()
            for number in range(int(rate * (seconds + WARM_UP))):
                due = start + number / rate
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                task = asyncio.ensure_future(bus.publish(events[0](saga=f"saga-{number}", begun=time.monotonic())))
                publishing.add(task)
                task.add_done_callback(publishing.discard)
            await asyncio.sleep(1)
    return times.percentiles()


async def create_hand_topics(log_url: str) -> None:
    async with open_log(log_url) as log:
        await log.create_topics([Topic(name=topic) for topic in HAND_TOPICS])


class Hand:
    """The same chain by hand, a thread a hop."""

    def __init__(self, bootstrap: str, folder: Path, times: Times) -> None:
        self._bootstrap, self._folder, self._times = bootstrap, folder, times
        self._group = f"hand-{uuid.uuid4().hex[:8]}"
        self._stopping = False
        self.ready = threading.Barrier(HOPS + 1)
        self.threads = [threading.Thread(target=self._hop, args=(number,)) for number in range(HOPS)]
        for thread in self.threads:
            thread.start()

    def producer(self) -> Producer:
        return Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True, "linger.ms": 0})

    def stop(self) -> None:
        self._stopping = True
        for thread in self.threads:
            thread.join()

    def _hop(self, number: int) -> None:
        store = sqlite3.connect(self._folder / f"{self._group}-{number}.db", isolation_level=None)
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = FULL")
        store.execute("CREATE TABLE inbox (id TEXT PRIMARY KEY, offset INTEGER)")
        producer = self.producer()
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap, "group.id": f"{self._group}-{number}",
                "auto.offset.reset": "latest", "enable.auto.commit": True,
            }
        )  # fmt: skip
        assigned: list[Any] = []
        consumer.subscribe([HAND_TOPICS[number]], on_assign=lambda _, partitions: assigned.extend(partitions))
        while not assigned:
            consumer.poll(0.05)
        consumer.poll(0.5)
        self.ready.wait()
        while not self._stopping:
            message = consumer.poll(0.05)
            if message is None or message.error():
                continue
            saga = Saga.model_validate_json(message.value())
            store.execute("BEGIN IMMEDIATE")
            store.execute("INSERT INTO inbox VALUES (?, ?)", (saga.saga, message.offset()))
            store.execute("COMMIT")
            if number == HOPS - 1:
                self._times.end(saga.begun)
            else:
                producer.produce(HAND_TOPICS[number + 1], saga.model_dump_json().encode(), message.key())
                producer.poll(0)
        producer.flush()
        consumer.close()
        store.close()


def by_hand(bootstrap: str, folder: Path, rate: int, seconds: float) -> dict[str, float]:
    times = Times()
    hand = Hand(bootstrap, folder, times)
    producer = hand.producer()
    hand.ready.wait()
    settle_garbage_collector(HOPS * Settings().max_in_flight)
    start = time.monotonic()
    times.begin = start + WARM_UP
    for number in range(int(rate * (seconds + WARM_UP))):
        if (wait := start + number / rate - time.monotonic()) > 0:
            time.sleep(wait)
        saga = Saga(saga=f"saga-{number}", begun=time.monotonic())
        producer.produce(HAND_TOPICS[0], saga.model_dump_json().encode(), saga.saga.encode())
        producer.poll(0)
    time.sleep(1)
    hand.stop()
    return times.percentiles()


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    from tests.servers.kafka import KafkaServer

    report = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-")))
        bootstrap = arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
        common: dict[str, Any] = {"registry": f"{folder}/schemas", "create_topics": True}
        common["store"] = f"sqlite:///{folder}/{{service}}.db"
        kafka = Settings(log=f"kafka://{bootstrap}", **common)
        embedded = Settings(log=f"sqlite:///{folder}/log.db", **common)
        asyncio.run(create_hand_topics(kafka.log))
        by_hand(bootstrap, folder, arguments.rates[0], BROKER_WARM_UP)
        for rate in arguments.rates:
            report[f"choreo, Kafka, {rate}/s"] = run_to_end(by_choreo(kafka, rate, arguments.seconds))
            report[f"by hand, Kafka, {rate}/s"] = by_hand(bootstrap, folder, rate, arguments.seconds)
            if rate <= 200:
                report[f"choreo, embedded log, {rate}/s"] = run_to_end(by_choreo(embedded, rate, arguments.seconds))
    return report


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="measured seconds per contestant and rate")
    parser.add_argument("--rates", type=int, nargs="+", default=[200, 1000])
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    report = measure(arguments)
    lines = (
        f"{name:30} p50 {found['p50']:6.1f} ms  p99 {found['p99']:6.1f} ms  ({found['sagas']:,.0f} sagas)"
        for name, found in report.items()
    )
    options.tell(arguments, report, lines)


if __name__ == "__main__":
    main()
