"""Services are killed while orders flow: afterwards every order has ended and every book is right.

A short round on the embedded log by default; the full one (20 kills, 2,000 orders, Kafka too) under CI=true or when
CHOREO_CHAOS_KILLS says so. CHOREO_CHAOS_SEED repeats a schedule.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random, SystemRandom
from typing import NamedTuple

import pytest

from choreo import Settings, connect
from choreo.log import Log, open_log
from services.shop import services
from services.shop.model import books_of
from services.shop.orders_generator import orders
from services.shop.trial import begin, ends_of, place, settle
from tests.servers.downloads import in_ci
from tests.services.conftest import SCHEMAS
from tests.services.processes import KAFKA, ShopService, processes

FULL = in_ci() or "CHOREO_CHAOS_KILLS" in os.environ
KILLS = int(os.environ.get("CHOREO_CHAOS_KILLS", "20" if FULL else "5"))
ORDERS = int(os.environ.get("CHOREO_CHAOS_ORDERS", "2000" if FULL else "500"))
SEED = int(os.environ.get("CHOREO_CHAOS_SEED", SystemRandom().randrange(1_000_000)))
ALL = [service.name for service in services]

pytestmark = [pytest.mark.chaos]


class Kill(NamedTuple):
    """One kill: it comes when the log has grown by `after` records since its share of the orders was placed."""

    service: str
    after: int


def schedule() -> list[Kill]:
    """The kills of this round, each service's turn coming once before any comes again.

    An order makes four records at least, so all kills come while orders are open.
    """
    draw, share = Random(SEED), ORDERS // KILLS
    victims = [service for _ in range(KILLS) for service in draw.sample(ALL, len(ALL))]
    return [Kill(service, draw.randint(share, 4 * share)) for service in victims[:KILLS]]


@pytest.mark.parametrize(
    "log_url",
    [
        "sqlite",
        pytest.param(
            "kafka",
            marks=[pytest.mark.kafka, pytest.mark.skipif(not FULL, reason="the short round is on the embedded log")],
        ),
    ],
)
async def test_kills_lose_nothing_and_repeat_nothing(
    log_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_kafka = log_url == "kafka"
    settings = Settings(
        log=f"kafka://{request.getfixturevalue('kafka_bootstrap')}" if is_kafka else f"sqlite:///{tmp_path}/log.db",
        store=f"sqlite:///{tmp_path}/{{service}}.db",
        registry=SCHEMAS,
        create_topics=True,
        kafka=KAFKA if is_kafka else {},
    )
    kills = schedule()
    print(f"CHOREO_CHAOS_SEED={SEED}", *kills, sep="\n  ")  # noqa: T201 - pytest shows it when the test fails
    placed = orders(SEED, ORDERS)
    books = books_of(placed)
    async with open_log(settings.log) as log:
        since = await begin(services, settings, log)
        with processes(ALL, settings) as running:
            async with connect(settings, log=log) as bus:
                for number, kill in enumerate(kills):
                    grown = await records(log)
                    await place(bus, placed[number * ORDERS // KILLS : (number + 1) * ORDERS // KILLS], duplicates=0.05)
                    await until_grown(log, grown + kill.after, running)
                    victim = next(process for process in running if process.service == kill.service)
                    victim.kill()
                    victim.start()
            verdict = await settle(services, log, stores=settings.store, books=books, since=since, patience=60)
            assert verdict.findings == []
            assert all(process.is_running for process in running)
        ends = await ends_of(services, log)
    dead_letters = {at: ends[at] - since[at] for at in ends if at.topic.startswith("dlq.") and ends[at] > since[at]}
    assert dead_letters == {}


async def records(log: Log) -> int:
    return sum((await ends_of(services, log)).values())


async def until_grown(log: Log, size: int, running: list[ShopService]) -> None:
    """Wait until the log has this many records."""
    async with asyncio.timeout(90):
        while await records(log) < size:
            for process in running:
                assert process.is_running, process.log_tail()
            await asyncio.sleep(0.01)
