"""How many events a second does a handler load into a table in batches, beside a loop written by hand?

    python benchmarks/batch.py [--events N] [--rounds N] [--size N] [--json]

Events lie in 4 partitions; each contestant reads, validates and inserts them into SQLite, up to `--size` with one
`execute_many`, from Kafka and from the embedded log. `by hand` commits rows and offsets in one transaction a batch, which is
what makes its effects happen once too (it knows no copies, no bad records, no other instance). `one by one` is choreo with a
handler that takes single events. Seconds run from the first event to the moment when the last is durable; the best round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import fastavro
import options
import structlog
from confluent_kafka import Consumer

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import BatchContext, Context, Event, Service, Settings, connect
from choreo.log import Topic, open_log
from choreo.runtime.run import run_to_end, running, settle_garbage_collector

TOPIC = f"bench-clicks-{uuid.uuid4().hex[:8]}"
TABLE = "CREATE TABLE IF NOT EXISTS clicks (visitor TEXT, number INTEGER, page TEXT, agent TEXT, at_ms INTEGER)"
INSERT = "INSERT INTO clicks VALUES (?, ?, ?, ?, ?)"
OFFSETS = "CREATE TABLE IF NOT EXISTS offsets (partition INTEGER PRIMARY KEY, next INTEGER)"


class Clicked(Event, topic=TOPIC, key="visitor"):
    visitor: str
    number: int
    page: str
    agent: str
    at_ms: int


def row(click: Clicked) -> tuple[Any, ...]:
    return click.visitor, click.number, click.page, click.agent, click.at_ms


class Watch:
    """From the first event to the last durable row."""

    def __init__(self, events: int) -> None:
        self.events, self.first = events, 0.0

    def begin(self) -> None:
        self.first = self.first or time.perf_counter()

    async def seconds(self, file: Path) -> float:
        while True:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                (found,) = connection.execute("SELECT max(rowid) FROM clicks").fetchone()
            if found and found >= self.events:
                return time.perf_counter() - self.first
            await asyncio.sleep(0.02)


async def fill(settings: Settings, events: int) -> None:
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=TOPIC, partitions=4)])
        async with connect(settings, log=log) as bus:
            for start in range(0, events, 1000):
                await bus.publish_many(
                    [
                        Clicked(
                            visitor=f"visitor-{n % 5000:05}", number=n, page=f"/products/{n % 997}/details",
                            agent="Mozilla/5.0 (X11; Linux x86_64; rv:128.0)", at_ms=1_700_000_000_000 + n,
                        )
                        for n in range(start, min(events, start + 1000))
                    ]
                )  # fmt: skip


# --- choreo -----------------------------------------------------------------------------------------------------------


async def by_choreo(settings: Settings, arguments: argparse.Namespace, *, batches: bool) -> float:
    watch, name = Watch(arguments.events), f"clicks-{uuid.uuid4().hex[:8]}"
    service = Service(name, tables=TABLE)
    if batches:

        @service.batch(Clicked, max_size=arguments.size, max_age="1s")
        async def load(clicks: list[Clicked], ctx: BatchContext) -> None:
            watch.begin()
            await ctx.db.execute_many(INSERT, [row(click) for click in clicks])

    else:

        @service.on(Clicked)
        async def insert(click: Clicked, ctx: Context) -> None:
            watch.begin()
            await ctx.db.execute(INSERT, row(click))

    async with running([service], settings):
        settle_garbage_collector(settings.max_in_flight)
        return await watch.seconds(Path(settings.store_of(name, None).removeprefix("sqlite:///").partition("?")[0]))


# --- by hand ----------------------------------------------------------------------------------------------------------


def reader(settings: Settings) -> Callable[[bytes], Clicked]:
    schema = fastavro.parse_schema(json.loads((Path(settings.registry) / TOPIC / "Clicked.avsc").read_text()))
    return lambda value: Clicked.model_validate(fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None))


class Table:
    """Rows and offsets in one transaction."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(TABLE)
        self._connection.execute(OFFSETS)

    def load(self, clicks: Sequence[Clicked], offsets: Iterable[tuple[int, int]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(INSERT, [row(click) for click in clicks])
        self._connection.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?)", offsets)
        self._connection.execute("COMMIT")


async def by_hand_kafka(settings: Settings, arguments: argparse.Namespace) -> float:
    watch, file, read = Watch(arguments.events), _file(settings), reader(settings)
    table = Table(file)
    bootstrap = settings.log.removeprefix("kafka://")
    client = {"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**client, "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    settle_garbage_collector(settings.max_in_flight)
    done = 0
    while done < arguments.events:
        messages = consumer.consume(arguments.size, 0.2)
        if messages:
            watch.begin()
            clicks = [read(message.value()) for message in messages]
            table.load(clicks, {message.partition(): message.offset() + 1 for message in messages}.items())
            done += len(clicks)
    seconds = await watch.seconds(file)
    consumer.close()
    return seconds


async def by_hand_embedded(settings: Settings, arguments: argparse.Namespace) -> float:
    watch, file, read = Watch(arguments.events), _file(settings), reader(settings)
    table, done = Table(file), 0
    settle_garbage_collector(settings.max_in_flight)
    async with open_log(settings.log) as log:
        consumer = log.consumer([TOPIC])
        while done < arguments.events:
            records = await consumer.poll(arguments.size, 0.2)
            if records:
                watch.begin()
                clicks = [read(record.value or b"") for record in records]
                offsets = {record.partition: record.offset + 1 for record in records}.items()
                await asyncio.to_thread(table.load, clicks, offsets)
                done += len(clicks)
        seconds = await watch.seconds(file)
        await consumer.close()
    return seconds


def _file(settings: Settings) -> Path:
    return Path(settings.registry).parent / f"by-hand-{uuid.uuid4().hex[:8]}.db"


# --- all --------------------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    from tests.servers.kafka import KafkaServer

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-"))
        bootstrap = arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
        places = {"store": f"sqlite:///{folder}/{{service}}.db", "registry": f"{folder}/schemas", "create_topics": True}
        report = {}
        for url, by_hand in (
            (f"kafka://{bootstrap}", by_hand_kafka),
            (f"sqlite:///{folder}/log.db", by_hand_embedded),
        ):
            settings = Settings(log=url, **places)
            asyncio.run(fill(settings, arguments.events))
            report[url.partition(":")[0]] = _best(settings, arguments, by_hand)
    return report


def _best(
    settings: Settings,
    arguments: argparse.Namespace,
    by_hand: Callable[[Settings, argparse.Namespace], Awaitable[float]],
) -> dict[str, float]:
    contestants = {
        "by hand": lambda: by_hand(settings, arguments),
        "batches": lambda: by_choreo(settings, arguments, batches=True),
        "one by one": lambda: by_choreo(settings, arguments, batches=False),
    }
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, run in contestants.items():
            best[name] = max(best.get(name, 0.0), arguments.events / run_to_end(run()))
    return best


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=500)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    report = measure(arguments)
    lines = ["| from | | events/s | of the loop by hand |", "|--|--|--:|--:|"]
    lines += [
        f"| {source} | {name} | {rate:,.0f} | {rate / rates['by hand']:.2f} |"
        for source, rates in report.items()
        for name, rate in rates.items()
    ]
    options.tell(arguments, report, lines)


if __name__ == "__main__":
    main()
