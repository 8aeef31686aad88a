"""The shop as an operator runs it: a process for each service, and two for one of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from choreo import Settings, connect
from choreo.log import TopicPartition, open_log
from services.shop import services
from services.shop.audit import audit, findings_now, open_stores
from services.shop.model import books_of
from services.shop.orders_generator import orders
from services.trial import begin, publish, settle
from tests.services.conftest import SCHEMAS
from tests.services.processes import CHECKOUT, KAFKA, ShopProcess, processes

ALL = [service.name for service in services]


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_two_instances_of_one_service_give_the_same_outcomes(log_url: str, tmp_path: Path) -> None:
    placed = orders(7, 150)
    books = books_of(placed)
    settings = Settings(
        log=log_url,
        store=f"sqlite:///{tmp_path}/{{service}}.db",
        registry=SCHEMAS,
        create_topics=True,
        kafka=KAFKA if log_url.startswith("kafka") else {},
    )
    async with open_log(settings.log) as log:
        since = await begin(services, settings, log)
        with processes([*ALL, "payments"], settings) as running:
            two = [process for process in running if "payments" in process.services]
            await until_both_have_partitions(two)
            async with connect(settings, log=log) as bus:
                await publish(bus, placed)
            verdict = await settle(services, log, partial(findings_now, settings.store, books), since=since)
            assert verdict.findings == [], "\n".join(process.log_tail() for process in running)
            codes = await asyncio.gather(*(asyncio.to_thread(process.stop) for process in running))
    assert codes == [0] * len(running)
    with open_stores(settings.store) as stores:
        assert audit(stores, books) == []


async def until_both_have_partitions(two: list[ShopProcess]) -> None:
    """Wait until each of them owns some of the partitions."""
    async with asyncio.timeout(60):
        while not all(assigned(process) for process in two):
            assert all(process.is_running for process in two), two[0].log_tail() + two[1].log_tail()
            await asyncio.sleep(0.05)


def assigned(process: ShopProcess) -> bool:
    return any(line["event"] == "partitions assigned" and line["partitions"] for line in process.lines())


async def test_orders_can_be_placed_from_a_shell(tmp_path: Path) -> None:
    """What the container `place-orders` does."""
    settings = Settings(log=f"sqlite:///{tmp_path}/log.db", registry=SCHEMAS)
    command = [sys.executable, "-m", "services.shop.place", "--orders", "12", "--seed", "3"]
    environment = {**os.environ, "CHOREO_LOG": settings.log, "CHOREO_REGISTRY": SCHEMAS}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "placed 12 orders, o-3-00001 to o-3-00012\n"), done.stderr
    async with open_log(settings.log) as log:
        topic = (await log.topics())["orders"]
        ends = await log.end_offsets(TopicPartition("orders", number) for number in range(topic.partitions))
    assert sum(ends.values()) == 12
