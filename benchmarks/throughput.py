"""How fast is one handler that emits one event, with an SQLite store, beside a loop written by hand?

    python benchmarks/throughput.py [--kafka HOST:PORT] [--events N] [--json]

Without --kafka a broker is started for the run (see `tests/servers`). Every contestant reads the same N order events
from 4 partitions and is timed from its first records until the log has acknowledged its last emitted event.

The hand-written loop does what a careful engineer writes without a framework: confluent-kafka batches, headers read
and written, fastavro, pydantic, flush and commit per batch. It is at-least-once and has no store; choreo, in the same
time, writes progress, inbox and outbox so that effects happen once.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import logging
import pstats
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel

import choreo
from choreo import Event, Service, Settings
from choreo.log import Log, Topic, TopicPartition, open_log
from choreo.runtime.run import running
from choreo.wire import Codec, open_registry

sys.path.insert(0, str(Path(__file__).parent.parent))

PARTITIONS = 4
BATCH = 1000
RUN = uuid.uuid4().hex[:8]
ORDERS, PAYMENTS = f"bench-orders-{RUN}", f"bench-payments-{RUN}"


class Line(BaseModel):
    sku: str
    quantity: int
    price: Decimal


class OrderPlaced(Event, topic=ORDERS, key="order_id"):
    order_id: str
    customer: str
    placed_at: datetime
    total: Decimal
    lines: list[Line]


class PaymentCharged(Event, topic=PAYMENTS, key="order_id"):
    order_id: str
    total: Decimal
    receipt: str


def order(number: int) -> OrderPlaced:
    lines = [Line(sku=f"sku-{number % 97}-{i}", quantity=i + 1, price=Decimal("19.99")) for i in range(3)]
    return OrderPlaced(
        order_id=f"order-{number}",
        customer=f"customer-{number % 1000}",
        placed_at=datetime.now(UTC),
        total=Decimal("119.94"),
        lines=lines,
    )


def charge(placed: OrderPlaced) -> PaymentCharged:
    return PaymentCharged(order_id=placed.order_id, total=placed.total, receipt=f"receipt-{placed.order_id}")


def bench_service(name: str) -> Service:
    service = Service(name)

    @service.on(OrderPlaced)
    async def handle(placed: OrderPlaced) -> PaymentCharged:
        return charge(placed)

    return service


class TimedLog:
    """A log whose consumers note when their first records came."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.first = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def consumer(self, *args: Any, **kwargs: Any) -> Any:
        consumer = self._log.consumer(*args, **kwargs)
        poll = consumer.poll

        async def timed(*poll_args: Any) -> Any:
            records = await poll(*poll_args)
            if records and not self.first:
                self.first = time.perf_counter()
                self.first_cpu = time.process_time()
            return records

        consumer.poll = timed
        return consumer


async def fill(settings: Settings, events: int) -> None:
    async with open_log(settings.log, settings.kafka) as log:
        await log.create_topics([Topic(name=name, partitions=PARTITIONS) for name in (ORDERS, PAYMENTS)])
        async with choreo.connect(settings, log=log) as bus:
            for start in range(0, events, BATCH):
                await bus.publish_many([order(n) for n in range(start, min(events, start + BATCH))])


async def emitted(log: Log) -> int:
    ends = await log.end_offsets([TopicPartition(PAYMENTS, n) for n in range(PARTITIONS)])
    return sum(ends.values())


async def run_choreo(settings: Settings, events: int) -> tuple[float, float]:
    """Seconds of wall clock and of CPU."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    async with open_log(settings.log, settings.kafka) as real:
        log = TimedLog(real)
        target = await emitted(real) + events
        async with running([bench_service(name)], settings, log=log) as instances:  # type: ignore[arg-type]
            stats = instances[name].stats
            while stats.emitted < events or await emitted(real) < target:  # noqa: ASYNC110 - the end is in the broker
                await asyncio.sleep(0.01)
            return time.perf_counter() - log.first, time.process_time() - log.first_cpu


def run_by_hand(bootstrap: str, registry: str, events: int) -> tuple[float, float]:
    """The loop somebody writes without a framework. Seconds of wall clock and of CPU."""
    import io

    import fastavro
    from confluent_kafka import Consumer, Producer

    async def schemas() -> tuple[Any, Any, int]:
        codec = Codec(open_registry(registry))
        await codec.prepare(writes=[OrderPlaced, PaymentCharged], reads=[OrderPlaced])
        probe = codec.encode(charge(order(0)), choreo.Metadata("x", "PaymentCharged", "x", "x", "x"))
        folder = Path(registry)
        order_schema = json.loads((folder / ORDERS / "OrderPlaced.avsc").read_text())
        payment_schema = json.loads((folder / PAYMENTS / "PaymentCharged.avsc").read_text())
        return (
            fastavro.parse_schema(order_schema),
            fastavro.parse_schema(payment_schema),
            int.from_bytes(probe.value[1:5]),
        )

    order_schema, payment_schema, schema_id = asyncio.run(schemas())
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": f"hand-{uuid.uuid4().hex[:8]}", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 50,
        }
    )  # fmt: skip
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 1}
    )
    consumer.subscribe([ORDERS])
    failed: list[Any] = []
    prefix = b"\0" + schema_id.to_bytes(4)
    done, first, first_cpu = 0, 0.0, 0.0
    while done < events:
        message = consumer.poll(0.1)
        if message is None:
            continue
        messages = [message, *consumer.consume(BATCH - 1, 0)]
        if not first:
            first, first_cpu = time.perf_counter(), time.process_time()
        for message in messages:
            if message.error():
                raise SystemExit(message.error())
            headers = dict(message.headers())
            value = message.value()
            placed = OrderPlaced.model_validate(fastavro.schemaless_reader(io.BytesIO(value[5:]), order_schema, None))
            charged = charge(placed)
            out = io.BytesIO()
            out.write(prefix)
            fastavro.schemaless_writer(out, payment_schema, charged.__dict__)
            producer.produce(
                PAYMENTS,
                out.getvalue(),
                charged.order_id.encode(),
                headers=[
                    ("ce_specversion", b"1.0"), ("ce_id", str(uuid.uuid4()).encode()), ("ce_type", b"PaymentCharged"),
                    ("ce_source", b"hand"), ("ce_time", datetime.now(UTC).isoformat().encode()),
                    ("ce_correlationid", headers["ce_correlationid"]), ("ce_causationid", headers["ce_id"]),
                ],
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )  # fmt: skip
        producer.flush()
        if failed:
            raise SystemExit(failed[0])
        consumer.commit(asynchronous=False)
        done += len(messages)
    ended = time.perf_counter() - first, time.process_time() - first_cpu
    consumer.close()
    return ended


# --- where the time goes ----------------------------------------------------------------------------------------------

ROOMS = {
    "choreo/wire": "wire (headers, Avro, ids)", "choreo/runtime": "runtime (lanes, unit of work, invoke)",
    "choreo/store": "store", "choreo/log": "log adapter", "fastavro": "wire (headers, Avro, ids)", "pydantic": "pydantic",
    "msgpack": "outbox packing", "sqlite3": "SQLite itself", "cimpl": "Kafka client", "asyncio": "asyncio", "epoll": "waiting",
    "acquire": "waiting", "benchmarks": "the handler and its events",
}  # fmt: skip


def profile(settings: Settings, events: int) -> dict[str, float]:
    """Share of the event loop's thread by room, from a profiled run (which is slower than the timed ones)."""
    profiler = cProfile.Profile()
    profiler.enable()
    asyncio.run(run_choreo(settings, events))
    profiler.disable()
    shares: dict[str, float] = {}
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        room = next((name for part, name in ROOMS.items() if part in f"{file} {function}"), "other built-ins")
        shares[room] = shares.get(room, 0.0) + own
    total = sum(shares.values())
    return {room: own / total for room, own in sorted(shares.items(), key=lambda item: -item[1])}


# --- the report -------------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace, folder: Path, bootstrap: str | None) -> dict[str, Any]:
    events, registry = arguments.events, str(folder / "schemas")
    store = f"sqlite:///{folder}/{{service}}.db"
    report: dict[str, Any] = {"events": events, "results": {}, "profile": {}}
    logs = {"embedded log": f"sqlite:///{folder}/log.db"}
    if bootstrap:
        logs["Kafka"] = f"kafka://{bootstrap}"
    for name, url in logs.items():
        settings = Settings(log=url, store=store, registry=registry, create_topics=True)
        asyncio.run(fill(settings, events))
        runs = []
        for _ in range(arguments.runs):
            if name == "Kafka":
                runs.append(("by hand, Kafka", *run_by_hand(bootstrap, registry, events)))
            runs.append((f"choreo, {name}", *asyncio.run(run_choreo(settings, events))))
        for contestant, seconds, cpu in runs:
            rates = report["results"].setdefault(contestant, {"events_per_second": 0.0, "cpu_seconds_per_100k": 1e9})
            rates["events_per_second"] = max(rates["events_per_second"], events / seconds)
            rates["cpu_seconds_per_100k"] = min(rates["cpu_seconds_per_100k"], cpu / events * 100_000)
        report["profile"][f"choreo, {name}"] = profile(settings, min(events, 20_000) if not bootstrap else events)
    base = report["results"].get("by hand, Kafka")
    for rates in report["results"].values():
        rates["ratio"] = rates["events_per_second"] / base["events_per_second"] if base else None
    return report


def show(report: dict[str, Any]) -> None:
    print(f"{report['events']} events, one handler, one emitted event each; best of the runs")
    for name, rates in report["results"].items():
        ratio = f"{rates['ratio']:.2f} of the hand-written loop" if rates["ratio"] else "no broker to compare with"
        print(
            f"  {name:24} {rates['events_per_second']:>10,.0f} events/s  {rates['cpu_seconds_per_100k']:.2f} CPU s per 100k  {ratio}"
        )
    for name, shares in report["profile"].items():
        print(f"where the time goes ({name}, profiled):")
        for room, share in shares.items():
            if share >= 0.01:
                print(f"  {share:>5.0%}  {room}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a running broker; started for the run unless given")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each contestant, taken in turns; the best counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-")))
        bootstrap = arguments.kafka
        if bootstrap is None:
            from tests.servers.kafka import KafkaServer

            bootstrap = stack.enter_context(KafkaServer()).bootstrap
        report = measure(arguments, folder, bootstrap)
    print(json.dumps(report, indent=2)) if arguments.json else show(report)


if __name__ == "__main__":
    main()
