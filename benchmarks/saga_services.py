"""Contestants of `sagas.py`: the same handlers with and without what sagas need.

python saga_services.py plain | compensated | two | join
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from decimal import Decimal

import structlog
from job import Bench, charged, say_first
from orders import OrderPlaced, PaymentCharged

from choreo import Event, Failure, Service, Settings
from choreo.runtime.run import run_services, run_to_end

_CHECKS = os.environ.get("CHOREO_BENCH_CHECKS", "bench-checks")


class OrderChecked(Event, topic=_CHECKS, key="order_id"):
    order_id: str
    total: Decimal
    checked_by: str


class OrderRefused(Failure, topic=f"{_CHECKS}-refused", key="order_id"):
    order_id: str


class PaymentRefunded(Event, topic=f"{_CHECKS}-refunded", key="order_id"):
    order_id: str


class First:
    """Says once that work has begun."""

    said = False

    @classmethod
    def order(cls) -> None:
        if not cls.said:
            cls.said = True
            say_first()


def service(name: str, kind: str) -> Service:
    made = Service(name)
    if kind == "join":

        @made.join(OrderPlaced, OrderChecked, by="order_id")
        async def charge_both(placed: OrderPlaced, _checked: OrderChecked) -> PaymentCharged:
            First.order()
            return PaymentCharged(**charged(placed))

        return made

    @made.on(OrderPlaced)
    async def charge(placed: OrderPlaced) -> PaymentCharged:
        First.order()
        return PaymentCharged(**charged(placed))

    if kind == "compensated":

        @made.compensates(charge, on=(OrderRefused,))
        async def refund(payment: PaymentCharged, _failure: OrderRefused) -> PaymentRefunded:
            return PaymentRefunded(order_id=payment.order_id)

    if kind == "two":

        @made.on(OrderChecked)
        async def note(_checked: OrderChecked) -> None:
            First.order()

    return made


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bench, stop = Bench.here(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = {"session.timeout.ms": "6000"}
    settings = Settings(log=bench.log, store=bench.store, registry=bench.schemas, kafka=client, create_topics=True)
    await run_services([service(bench.group, sys.argv[1])], settings, stop=stop)


if __name__ == "__main__":
    run_to_end(main())
