"""How quickly does the tracker read a log, how soon does it show an event, and how does it answer with many sagas?

    python benchmarks/tracker.py [catch-up] [latency] [store] [--events N] [--stored N] [--postgres] [--json]

- `catch-up`: a log of sagas of ten events, in 5 topics of 4 partitions of a real broker, all read and handled by their groups. The
  tracker reads it into a fresh store, until every saga is folded; in the same run, taking turns, a loop written by hand reads the same
  records: poll, headers, one row with an index. Best round of each.
- `latency`: 1,000 events a second are written; an event is visible when the store's list shows the saga with it.
- `store`: so many events are put straight into a store and folded, ten a saga; then lists with all kinds of filters, whole sagas
  and counts are asked for. Cost per event of the first and of the last tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import options

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
NAMES = ("catch-up", "latency", "store")
FILTERS = (
    "", "state = completed", "state = running", "state = stuck", "type = Step0 and state = failed", "service = payments",
    "key = order-00001234", "key contains 1234", "error contains Timeout", "has dead_letters", "duration > 3s",
    "duration > 300ms and state = completed", "owed > 0", "retries >= 2", "started < {middle}", "started < {middle} and state = failed",
    "not state = completed", "events > 10", "handler = stock.step2", "state = completed and not service = mail",
)  # fmt: skip


# --- catch-up ------------------------------------------------------------------------------------------------------


async def track(told: dict[str, Any]) -> dict[str, float]:
    """One run of the tracker, in a process of its own."""
    import tracker_world as world

    from choreo.log import open_log
    from choreo.runtime.run import settle_garbage_collector
    from choreo.saga.store import make_tracker_store
    from choreo.saga.tracker import Options, Tracker

    store = make_tracker_store(told["store"])
    await store.open()
    settle_garbage_collector(16_000)
    async with open_log(f"kafka://{told['bootstrap']}") as log:
        tracker = Tracker(log, store, world.GRAPH, Options(group=f"bench-{uuid.uuid4()}"))
        begun, cpu = time.monotonic(), time.process_time()
        working = asyncio.create_task(tracker.run())
        while True:
            await asyncio.sleep(0.02)
            counts = await store.counts()
            if working.done():
                await working
            if sum(count.sagas for count in counts if count.state == "completed") >= told["sagas"]:
                break
        run = {"wall": time.monotonic() - begun, "cpu": time.process_time() - cpu}
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await store.close()
    return run


def by_hand(told: dict[str, Any]) -> dict[str, float]:
    """Poll, headers, one row with an index."""
    import tracker_world as world
    from confluent_kafka import Consumer, TopicPartition

    store = sqlite3.connect(told["store"].removeprefix("sqlite:///"), isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = NORMAL")
    store.execute("CREATE TABLE events (saga TEXT, id TEXT, type TEXT, topic TEXT, partition INT, offset INT, at INT)")
    store.execute("CREATE INDEX by_saga ON events (saga)")
    client = Consumer(
        {"bootstrap.servers": told["bootstrap"], "group.id": str(uuid.uuid4()), "queued.min.messages": 100_000}
    )
    client.assign([TopicPartition(name, number, 0) for name in world.TOPICS for number in range(world.PARTITIONS)])
    begun, cpu, seen = time.monotonic(), time.process_time(), 0
    while seen < told["sagas"] * world.STEPS:
        messages, rows = client.consume(10_000, 1.0), []
        for message in messages:
            said = dict(message.headers())
            names = (said["ce_correlationid"].decode(), said["ce_id"].decode(), said["ce_type"].decode())
            rows.append((*names, message.topic(), message.partition(), message.offset(), message.timestamp()[1]))
        store.execute("BEGIN")
        store.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        store.execute("COMMIT")
        seen += len(messages)
    return {"wall": time.monotonic() - begun, "cpu": time.process_time() - cpu}


def apart(name: str, told: dict[str, Any]) -> dict[str, float]:
    """A contestant in a process of its own."""
    environment = os.environ | {"CHOREO_BENCH_TRACKER": json.dumps(told)}
    program = [sys.executable, str(HERE / "tracker.py"), f"--run={name}"]
    ran = subprocess.run(program, env=environment, stdout=subprocess.PIPE, check=True, cwd=HERE)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def catch_up(arguments: argparse.Namespace, stack: ExitStack, folder: Path) -> dict[str, Any]:
    import tracker_world as world

    from tests.servers.kafka import KafkaServer

    bootstrap = arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
    sagas = arguments.events // world.STEPS
    world.fill(bootstrap, sagas)
    stores = {"by hand": "sqlite:///{folder}/hand-{n}.db", "sqlite": "sqlite:///{folder}/tracker-{n}.db"}
    if arguments.postgres:
        from tests.servers.postgres import PostgresServer

        stores["postgres"] = stack.enter_context(PostgresServer()).url + "?schema=tracker_{n}"
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    for number in range(arguments.rounds):
        for name, store in stores.items():
            told = {"bootstrap": bootstrap, "sagas": sagas, "store": store.format(folder=folder, n=number)}
            runs[name].append(apart("by-hand" if name == "by hand" else "track", told))
            print(f"round {number + 1}: {name} {sagas * world.STEPS / runs[name][-1]['wall']:,.0f}/s", file=sys.stderr)
    events = sagas * world.STEPS
    found = {name: {"events_per_second": events / min(run["wall"] for run in those),
                    "cpu_us_per_event": min(run["cpu"] for run in those) / events * 1e6} for name, those in runs.items()}  # fmt: skip
    for those in found.values():
        those["ratio"] = those["events_per_second"] / found["by hand"]["events_per_second"]
    return {"bootstrap": bootstrap, "contestants": found}


# --- latency -------------------------------------------------------------------------------------------------------


async def latency(bootstrap: str, folder: Path, seconds: float) -> dict[str, float]:
    """How long after it was acknowledged an event is in the saga that the store shows."""
    import tracker_world as world
    from confluent_kafka import Producer

    from choreo.log import open_log
    from choreo.saga.store import make_tracker_store
    from choreo.saga.tracker import Options, Tracker

    store = make_tracker_store(f"sqlite:///{folder}/latency.db")
    await store.open()
    async with open_log(f"kafka://{bootstrap}") as log:
        tracker = Tracker(log, store, world.GRAPH, Options(group=f"bench-{uuid.uuid4()}"))
        working = asyncio.create_task(tracker.run())
        await asyncio.sleep(1)
        await tracker.settled()
        producer, waiting, took = (
            Producer({"bootstrap.servers": bootstrap}),
            dict[str, tuple[int, float]](),
            list[float](),
        )
        acknowledged = asyncio.Queue[tuple[str, float]]()
        loop, number, begun = asyncio.get_running_loop(), 0, time.monotonic()

        def delivered(saga: str) -> Any:
            return lambda *_: loop.call_soon_threadsafe(acknowledged.put_nowait, (saga, time.monotonic()))

        while (now := time.monotonic()) < begun + seconds or (waiting and now < begun + seconds + 10):
            while now < begun + seconds and number < (now - begun) * 1_000 / world.STEPS:
                for topic, key, headers in world.saga(10**7 + number):
                    saga = dict(headers)["ce_correlationid"].decode()
                    producer.produce(topic, b"\0\0\0\0\1x", key, headers=headers, on_delivery=delivered(saga))
                number += 1
            producer.poll(0)
            await asyncio.sleep(0.01)
            while not acknowledged.empty():
                saga, at = acknowledged.get_nowait()
                acks, last = waiting.get(saga, (0, 0.0))
                waiting[saga] = acks + 1, max(last, at)
            for saga, row in (await store.summaries(list(waiting))).items():
                if row.events >= waiting[saga][0] == world.STEPS:
                    took.append(time.monotonic() - waiting.pop(saga)[1])
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await store.close()
    cuts = statistics.quantiles(took, n=100)
    return {
        "sagas": len(took),
        "lost": len(waiting),
        "p50_ms": cuts[49] * 1e3,
        "p95_ms": cuts[94] * 1e3,
        "max_ms": max(took) * 1e3,
    }


# --- a store of many -----------------------------------------------------------------------------------------------


async def stored(events: int, folder: Path) -> dict[str, Any]:
    """Fill a store, and ask it."""
    import tracker_world as world

    from choreo.log.port import TopicPartition
    from choreo.runtime.run import settle_garbage_collector
    from choreo.saga.store import make_tracker_store
    from choreo.saga.store.port import Place
    from choreo.saga.tracker.folding import Folder

    settle_garbage_collector(16_000)
    path = folder / "many.db"
    store = make_tracker_store(f"sqlite:///{path}")
    await store.open()
    sagas, offsets, now_ms = events // world.STEPS, dict[tuple[str, int], int](), 1_790_000_000_000
    places = [TopicPartition(name, number) for name in world.TOPICS for number in range(world.PARTITIONS)]
    await store.take_over(places)
    folder_of = Folder(store, world.GRAPH)
    folder_of.note({(group, at): 2**40 for group in world.GRAPH.services for at in places})
    folder_of.reached_ms = 2**42
    costs = []
    for first in range(0, sagas, 2_000):
        made = [
            world.sightings(number, now_ms + number * 50, offsets) for number in range(first, min(sagas, first + 2_000))
        ]
        made = [
            seen[: world.STEPS - number % 7] if number % 20 == 0 else seen for number, seen in enumerate(made, first)
        ]
        seen, cpu = [each for saga in made for each in saga], time.process_time()
        await store.add(seen, {TopicPartition(*at): Place(offset + 1, now_ms) for at, offset in offsets.items()})
        names = [saga[0].saga for saga in made]
        for part in range(0, len(names), 1_000):
            await folder_of.fold(names[part : part + 1_000], now_ms + 10**9)
        costs.append((time.process_time() - cpu) / len(seen) * 1e6)
        if first % 100_000 == 0:
            print(f"{first:,} sagas, {costs[-1]:.1f} us an event", file=sys.stderr)
    tenth = max(1, len(costs) // 10)
    found: dict[str, Any] = {
        "sagas": sagas, "first_tenth_us": statistics.median(costs[:tenth]), "last_tenth_us": statistics.median(costs[-tenth:]),
    }  # fmt: skip
    found |= await asked(store, now_ms + sagas * 25)
    await store.close()
    found["bytes_per_event"] = path.stat().st_size / events
    return found


async def asked(store: Any, middle_ms: int) -> dict[str, Any]:
    from datetime import UTC, datetime

    from choreo.saga.filter_text import parse

    middle = datetime.fromtimestamp(middle_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lists, shows, slowest = list[float](), list[float](), ("", 0.0)
    names: list[str] = []
    for text in FILTERS:
        fits, after, took = parse(text.format(middle=middle)), None, list[float]()
        for _ in range(5):
            begun = time.perf_counter()
            page = await store.page(fits, limit=50, after=after)
            took.append((time.perf_counter() - begun) * 1e3)
            after = page.after
            names += [row.saga for row in page.rows]
        lists += took
        slowest = max(slowest, (text, max(took)), key=lambda each: each[1])
        print(f"{max(took):8.1f} ms  {len(page.rows):3}  {text}", file=sys.stderr)
    for saga in names[:: max(1, len(names) // 200)]:
        begun = time.perf_counter()
        await store.sightings([saga])
        shows.append((time.perf_counter() - begun) * 1e3)
    begun = time.perf_counter()
    await store.counts()
    counts = (time.perf_counter() - begun) * 1e3
    return {
        "list_p50_ms": statistics.median(lists), "list_p95_ms": statistics.quantiles(lists, n=20)[18],
        "slowest_filter": slowest[0], "slowest_ms": slowest[1], "sightings_p95_ms": statistics.quantiles(shows, n=20)[18],
        "counts_ms": counts,
    }  # fmt: skip


# --- the program ---------------------------------------------------------------------------------------------------


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    names, report = arguments.names or NAMES, dict[str, Any]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-")))
        bootstrap = arguments.kafka
        if {"catch-up", "latency"} & set(names):
            report["catch-up"] = catch_up(arguments, stack, folder)
            bootstrap = report["catch-up"].pop("bootstrap")
        if "latency" in names:
            report["latency"] = asyncio.run(latency(bootstrap, folder, arguments.seconds))
        if "store" in names:
            report["store"] = asyncio.run(stored(arguments.stored, folder))
    return report


def lines(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    made = []
    if "catch-up" in report:
        made += ["| | events/s | of the hand-written loop | CPU us per event |", "|--|--:|--:|--:|"]
        made += [
            f"| {name} | {those['events_per_second']:,.0f} | {those['ratio']:.2f} | {those['cpu_us_per_event']:.1f} |"
            for name, those in report["catch-up"]["contestants"].items()
        ]
    for name in ("latency", "store"):
        if name in report:
            made += [f"{name}: " + ", ".join(f"{what} {told(value)}" for what, value in report[name].items())]
    return made


def told(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else repr(value)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--events", type=int, default=600_000, help="of the log that is read")
    parser.add_argument("--stored", type=int, default=1_000_000, help="events put straight into a store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of writing 1,000 events each")
    parser.add_argument("--postgres", action="store_true", help="read into PostgreSQL too")
    parser.add_argument("--run", choices=("track", "by-hand"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        given = json.loads(os.environ["CHOREO_BENCH_TRACKER"])
        from choreo.runtime.run import run_to_end

        print(json.dumps(run_to_end(track(given)) if arguments.run == "track" else by_hand(given)))
        return
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"nothing is called {', '.join(unknown)}")
    report = measure(arguments)
    options.tell(arguments, report, lines(report))


if __name__ == "__main__":
    main()
