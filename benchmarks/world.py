"""How long does a test take that runs the shop in a world of `choreo.testing`?

    python benchmarks/world.py [--worlds N] [--json]

Six services are started over a log and stores in memory, one order goes through, everything is ended. Milliseconds of
the wall's clock and of the processor's: the median of N worlds and the shortest; the first one, which loads classes and
schemas, is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import sys
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent.parent))

from choreo.testing import running
from services.shop import services
from services.shop.events import OrderConfirmed
from services.shop.model import Outcome, outcomes_of
from services.shop.orders_generator import orders

ORDER = next(order for order in orders(7, 200) if outcomes_of(order) == {Outcome.CONFIRMED})


async def world() -> tuple[float, float]:
    """One world from start to end: seconds of the wall's clock and of the processor's."""
    wall, processor = time.perf_counter(), time.process_time()
    async with running(services) as made:
        await made.publish(ORDER)
        await made.settle()
        assert len(made.emitted(OrderConfirmed)) == 1  # noqa: S101 - else this measures nothing
    return time.perf_counter() - wall, time.process_time() - processor


async def measure(worlds: int) -> dict[str, float]:
    await world()
    walls, processors = zip(*[await world() for _ in range(worlds)], strict=True)
    found = {
        "median": statistics.median(walls),
        "shortest": min(walls),
        "processor, median": statistics.median(processors),
        "processor, shortest": min(processors),
    }
    return {name: round(seconds * 1000, 1) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found = asyncio.run(measure(arguments.worlds))
    if arguments.json:
        print(json.dumps(found))
        return
    print("| a test of the shop | ms |\n|---|---|")
    for name, milliseconds in found.items():
        print(f"| {name} | {milliseconds} |")


if __name__ == "__main__":
    main()
