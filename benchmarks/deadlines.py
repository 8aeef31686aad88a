"""How late are deadlines called, and what do timers cost that are not due?

    python benchmarks/deadlines.py [--rate N] [--seconds N] [--pending N] [--embedded] [--json]

A service sets a timer with each event, `--rate` of them a second; every second event is answered in time, which stops its
timer. Lateness is from an event's own time plus `within` to the call of the handler. `--pending` rows of timers that are due in
a year lie in the store before. Beside it the same timers by hand: `loop.call_later` in memory, which forgets all of them when
the process ends.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import options

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo import Context, Event, Service, Settings, connect
from choreo.log import Topic, open_log
from choreo.log.port import Record, TopicPartition
from choreo.runtime.run import run_to_end, running, settle_garbage_collector
from choreo.store import Effects, Store, Timer, make_store

RUN = uuid4().hex[:8]
WITHIN = 2.0
_YEAR_MS = 365 * 86_400_000
_CHUNK = 5_000
_AFTER = 5.0


class Asked(Event, topic=f"bench-asked-{RUN}", key="number"):
    number: int


class Answered(Event, topic=f"bench-answered-{RUN}", key="number"):
    number: int


def service(late: list[float], name: str) -> Service:
    made = Service(name)

    @made.deadline(Asked, within=WITHIN, unless=(Answered,))
    async def expire(_asked: Asked, ctx: Context) -> None:
        late.append(time.time() - ctx.time.timestamp() - WITHIN)

    return made


async def fill(store: Store, name: str, pending: int) -> None:
    """Put timers into a store that are not due."""
    await store.open(name)
    at, due_ms = TopicPartition(Asked.contract.topics[0], 0), round(time.time() * 1000) + _YEAR_MS
    record = Record(at.topic, 0, 0, 0, b"1", b"x" * 60, [])
    for start in range(0, pending, _CHUNK):
        numbers = range(start, min(pending, start + _CHUNK))
        timers = [Timer(n.to_bytes(16, "big"), at, due_ms + n, "expire", record) for n in numbers]
        await store.commit(Effects({}, timers=timers))
    await store.close()


async def publish(bus: Any, rate: int, seconds: int) -> None:
    loop = asyncio.get_running_loop()
    begun, sent = loop.time(), 0
    answers: set[asyncio.Task[Any]] = set()
    while sent < rate * seconds:
        due = min(rate * seconds, int((loop.time() - begun) * rate))
        for number in range(sent, due):
            saga = f"saga-{number}"
            answers.add(asyncio.create_task(bus.publish(Asked(number=number), correlation_id=saga)))
            if number % 2:
                answers.add(asyncio.create_task(bus.publish(Answered(number=number), correlation_id=saga)))
        sent = max(sent, due)
        await asyncio.sleep(0.02)
    await asyncio.gather(*answers)


async def by_choreo(settings: Settings, arguments: argparse.Namespace) -> list[float]:
    late: list[float] = []
    name = f"bench-{uuid4().hex[:8]}"
    await fill(make_store(settings.store_of(name, None)), name, arguments.pending)
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=event.contract.topics[0], partitions=4) for event in (Asked, Answered)])
        async with running([service(late, name)], settings, log=log), connect(settings, log=log) as bus:
            settle_garbage_collector(settings.max_in_flight)
            await publish(bus, arguments.rate, arguments.seconds)
            await asyncio.sleep(WITHIN + _AFTER)
    wanted = arguments.rate * arguments.seconds - arguments.rate * arguments.seconds // 2
    if len(late) != wanted:
        raise SystemExit(f"{len(late)} deadlines were called, not {wanted}")
    return late


async def by_hand(rate: int, seconds: int) -> list[float]:
    loop, late = asyncio.get_running_loop(), list[float]()
    begun = loop.time()
    for number in range(0, rate * seconds, 2):
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
        due = time.time() + WITHIN
        loop.call_later(WITHIN, lambda due=due: late.append(time.time() - due))
    await asyncio.sleep(WITHIN + 1)
    return late


def told(late: list[float]) -> dict[str, float]:
    ordered = sorted(late)
    return {"p50_s": statistics.median(ordered), "p99_s": ordered[int(len(ordered) * 0.99)], "most_s": ordered[-1]}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-"))
        if arguments.embedded:
            url = f"sqlite:///{folder}/log.db"
        else:
            from tests.servers.kafka import KafkaServer

            url = f"kafka://{arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap}"
        settings = Settings(
            log=url, store=f"sqlite:///{folder}/{{service}}.db", registry=f"{folder}/schemas", create_topics=True
        )
        report = {"choreo": told(run_to_end(by_choreo(settings, arguments)))}
        report["by hand, in memory"] = told(run_to_end(by_hand(arguments.rate, arguments.seconds)))
        return report


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rate", type=int, default=200, help="events a second that set a timer")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--embedded", action="store_true", help="on the embedded log instead of Kafka")
    arguments = parser.parse_args()
    report = measure(arguments)
    lines = (
        f"{name:22} late by {figures['p50_s']:.3f} s (p50), {figures['p99_s']:.3f} (p99), {figures['most_s']:.3f} at most"
        for name, figures in report.items()
    )
    options.tell(arguments, report, lines)


if __name__ == "__main__":
    main()
