"""What does one poison record among 10,000 cost the others?

    python benchmarks/poison.py [--rounds N] [--json]

A service with an SQLite store on real Kafka gets 10,000 events of 200 keys at an even rate; of one event in the middle
the handler fails until it is mended. The latency of the other keys' events, from publication to the end of their handler, is
compared with that of a run without the poison record. Then the dead letter is redriven, and the events of its own key
must have been handled all, each once, in their order.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import options
import structlog

sys.path.insert(0, str(Path(__file__).parent.parent))

import choreo
from choreo import Event, Service, Settings
from choreo.dlq import Reason, Selection, dead_letters
from choreo.log import Log, Topic, open_log
from choreo.runtime.run import run_to_end, running, settle_garbage_collector

EVENTS, KEYS, RATE = 10_000, 200, 1_000
POISON = EVENTS // 3
PATIENCE = 120.0


def measured() -> Any:
    """An event class with a topic of its own: each run begins with an empty one."""

    class Measured(Event, topic=f"bench-poison-{uuid.uuid4().hex[:8]}", key="meter"):
        meter: str
        number: int
        at: float

    return Measured


class Meters:
    """The service, and what it saw."""

    def __init__(self, *, poisoned: bool) -> None:
        self.service = Service(f"meters-{uuid.uuid4().hex[:8]}")
        self.broken = poisoned
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.taken: list[float] = []
        self.event = measured()
        self._own = f"meter-{POISON % KEYS}"

        async def store(event: Any) -> None:
            self._handle(event)

        store.__annotations__["event"] = self.event
        self.service.on(self.event)(store)

    def _handle(self, event: Any) -> None:
        if self.broken and event.number == POISON:
            raise RuntimeError("poison")
        self.handled[event.meter].append(event.number)
        if event.meter != self._own and event.number > RATE:  # the first second warms up
            self.taken.append((time.monotonic() - event.at) * 1000)

    @property
    def count(self) -> int:
        return sum(map(len, self.handled.values()))


async def run(settings: Settings, *, poisoned: bool) -> dict[str, float]:
    meters = Meters(poisoned=poisoned)
    async with open_log(settings.log) as log:
        await log.create_topics([Topic(name=meters.event.contract.topics[0])])
        async with (
            running([meters.service], settings, log=log) as instances,
            choreo.connect(settings, log=log) as bus,
        ):
            await asyncio.sleep(1)
            settle_garbage_collector(settings.max_in_flight)
            publishing, start = set(), time.monotonic()
            for number in range(EVENTS):
                if (wait := start + number / RATE - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                event = meters.event(meter=f"meter-{number % KEYS}", number=number, at=time.monotonic())
                task = asyncio.ensure_future(bus.publish(event))
                publishing.add(task)
                task.add_done_callback(publishing.discard)
            if poisoned:
                await until(lambda: instances[meters.service.name].stats.dead_letters > 0)
                held = EVENTS - meters.count
                meters.broken = False
                await redrive(log, meters.service.name)
            await until(lambda: meters.count == EVENTS)
    if any(numbers != sorted(numbers) for numbers in meters.handled.values()):
        raise SystemExit("the order of a key was not kept")
    cuts = statistics.quantiles(meters.taken, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "held": held if poisoned else 0}


async def redrive(log: Log, service: str) -> None:
    chosen = Selection(service=service)
    async with dead_letters(log, service=service, values_of=chosen) as letters:
        async for _ in letters.resolve(chosen, Reason(kind="redriven", by="bench", why="mended")):
            pass


async def until(enough: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not enough():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    from tests.servers.kafka import KafkaServer

    best: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="choreo-bench-"))
        bootstrap = arguments.kafka or stack.enter_context(KafkaServer(lasting=True)).bootstrap
        settings = Settings(
            log=f"kafka://{bootstrap}", store=f"sqlite:///{folder}/{{service}}.db", registry=f"{folder}/schemas",
            create_topics=True,
        )  # fmt: skip
        for _ in range(arguments.rounds):
            for name, poisoned in (("without", False), ("with", True)):
                found = run_to_end(run(settings, poisoned=poisoned))
                if name not in best or found["p99"] < best[name]["p99"]:
                    best[name] = found
    return best


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    best = measure(arguments)
    change = best["with"]["p99"] / best["without"]["p99"] - 1
    lines = [
        f"{name:8} a poison record: p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms for the other keys"
        for name, found in best.items()
    ]
    held = f"{best['with']['held']:.0f} events of its key waited, and were handled in order"
    options.tell(arguments, {**best, "p99_change": change}, [*lines, f"p99 changes by {change:+.0%}; {held}"])


if __name__ == "__main__":
    main()
