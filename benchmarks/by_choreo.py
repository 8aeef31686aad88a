"""Contestant choreo: one handler that emits one event, run as `choreo run` runs it.

python by_choreo.py store | transactional
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import structlog
from job import Bench, charged, say_first
from orders import OrderPlaced, PaymentCharged

from choreo import Service, Settings
from choreo.runtime.run import run_services, run_to_end


def service(name: str, *, transactional: bool) -> Service:
    made = Service(name, transactional=transactional)
    started = False

    @made.on(OrderPlaced)
    async def charge(placed: OrderPlaced) -> PaymentCharged:
        nonlocal started
        if not started:
            started = True
            say_first()
        return PaymentCharged(**charged(placed))

    return made


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bench, stop = Bench.here(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = {"session.timeout.ms": "6000"}  # as the other contestants
    settings = Settings(log=bench.log, store=bench.store, registry=bench.schemas, kafka=client, create_topics=True)
    contestant = service(bench.group, transactional=sys.argv[1] == "transactional")
    await run_services([contestant], settings, stop=stop)


if __name__ == "__main__":
    run_to_end(main())
