"""Batches take effect once: crashes at every point of the unit of work, processes that are killed, records that kill them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from choreo import BatchContext, Service, connect
from choreo.log import open_log
from tests.integration.batch_world import Lake, in_order, orders
from tests.integration.runtime_faults import Faults, FaultyLog, plant
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, World, crash, unique
from tests.support import eventually

POINTS = ["take_over", "taken_over", "begin", "commit", "committed", "append", "appended"]
BAD = 7


@pytest.fixture
def faults(monkeypatch) -> Faults:
    monkeypatch.setattr("choreo.runtime.ownership._DEATHS", 99)  # crashes made here are no record's fault
    faults = Faults()
    plant(monkeypatch, faults)
    return faults


def emitting_service(per: str = "partition", size: int = 5) -> Service:
    """Writes each order, emits one event per batch that names them all, and fails at one order."""
    service = Service("payments", tables=TABLES)

    @service.batch(Placed, max_size=size, max_age="5ms", per=per, retry=AT_ONCE)
    async def load(placed: list[Placed], ctx: BatchContext) -> list[Paid]:
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        if any(order.n == BAD for order in placed):
            raise ValueError("bad")
        return [Paid(id=order.id, n=order.n) for order in placed]

    return service


async def is_right(world: World, count: int) -> None:
    """All orders but the bad one are there once and in order, in the table and among the emitted events."""
    good = [n for n in range(count) if n != BAD]
    assert in_order(world.rows("payments"), good)
    emitted = unique(await world.events("payments"))
    assert sorted(data["n"] for data in emitted.values()) == good
    letters = {headers["choreo.dlq.id"] for headers, _ in await world.letters("payments")}
    assert len(letters) == (1 if count > BAD else 0)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_loses_and_doubles_nothing(world, faults, point, count):
    service = emitting_service()
    reached, published = faults.freeze(point, count), 0
    async with World(FaultyLog(world.log, faults), world.folder).running(service) as instances:
        while published < 40 and not reached.is_set():
            await world.publish(*orders(4, first=published))
            published += 4
            await asyncio.sleep(0.01)
        if count == 1 or not point.startswith("take"):
            await eventually(reached.is_set)
        await crash(instances["payments"])
        faults.none()
    async with world.running(service):
        await world.publish(*orders(40 - published, first=published))
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    await is_right(world, 40)


@pytest.mark.parametrize("per", ["partition", "key"])
async def test_a_chain_of_crashes_at_random_points_over_copies(world, faults, per):
    service, chance = emitting_service(per), random.Random(7)
    async with world.running(service):
        pass  # makes the topics
    async with connect(world.settings(), log=world.log) as bus:
        for order in orders(100):
            for _ in range(chance.choice([1, 1, 2])):
                await bus.publish(order, event_id=f"event-{order.n}")
    for _ in range(8):
        reached = faults.freeze(chance.choice(POINTS), chance.choice([1, 2]))
        async with World(FaultyLog(world.log, faults), world.folder).running(service, max_in_flight=20) as instances:
            done = asyncio.ensure_future(world.read_to_the_end(service))
            await asyncio.wait({asyncio.ensure_future(reached.wait()), done}, return_when=asyncio.FIRST_COMPLETED)
            done.cancel()
            await crash(instances["payments"])
        faults.none()
    async with world.running(service):
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    await is_right(world, 100)


# --- processes --------------------------------------------------------------------------------------------------------

_PROCESS = """
import asyncio, os, sys
from pathlib import Path
from choreo import BatchContext, Service, Settings
from choreo.runtime.run import run_services
from tests.integration.runtime_world import TABLES, Placed

folder, killer = sys.argv[1], int(sys.argv[2])
service = Service("payments", tables=TABLES)

@service.batch(Placed, max_size=20, max_age="50ms")
async def load(placed: list[Placed], ctx: BatchContext) -> None:
    await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
    if any(order.n == killer for order in placed):
        os.abort()
    await asyncio.sleep(0.002)

async def main():
    stop = asyncio.Event()
    settings = Settings(
        log=f"sqlite:///{folder}/log.db", store=f"sqlite:///{folder}/{{service}}.db", registry=f"{folder}/schemas"
    )
    running = asyncio.ensure_future(run_services([service], settings, stop=stop))
    while not (Path(folder) / "stop").exists():
        await asyncio.sleep(0.02)
    stop.set()
    await running

asyncio.run(main())
"""


@asynccontextmanager
async def process(folder: Path, killer: int = -1) -> AsyncIterator[asyncio.subprocess.Process]:
    """An instance in a process of its own, killed at the end if it has not ended."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONFAULTHANDLER": ""}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROCESS, str(folder), str(killer), env=environment, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_processes_that_are_killed_lose_and_double_nothing(tmp_path: Path, monkeypatch):
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        world, chance, count = World(log, tmp_path), random.Random(3), 0
        await world.publish(*orders(600))
        for _ in range(3):
            async with process(tmp_path) as child:
                wanted = count + chance.randrange(20, 120)
                await eventually(lambda wanted=wanted: len(effects(world)) >= wanted, patience=60)
                child.send_signal(signal.SIGKILL)
                await child.wait()
                count = len(effects(world))
        lake = Lake(max_size=100, max_age="20ms")
        async with world.running(lake.service):
            await world.read_to_the_end(lake.service)
        assert in_order(world.rows("payments"), range(600))


def effects(world: World) -> list[tuple[str, int]]:
    """What is durable, nothing while there is no store."""
    return world.rows("payments") if (world.folder / "payments.db").exists() and _has_table(world) else []


def _has_table(world: World) -> bool:
    return bool(world.rows("payments", "SELECT 1 FROM sqlite_master WHERE name = 'effects'"))


async def test_a_record_that_kills_the_process_becomes_a_dead_letter_without_those_of_its_batch(tmp_path: Path):
    async with open_log(f"sqlite:///{tmp_path}/log.db") as log:
        world = World(log, tmp_path)
        await world.publish(*orders(30))
        for _ in range(4):
            async with process(tmp_path, killer=13) as child:
                assert await child.wait() < 0, "it dies"
        async with process(tmp_path, killer=13) as child:
            await eventually(lambda: len(effects(world)) == 29, lambda: effects(world), patience=60)
            (tmp_path / "stop").touch()
            assert await child.wait() == 0
        ((headers, _),) = await world.letters("payments")
        assert (headers["choreo.dlq.kind"], headers["choreo.dlq.parked"]) == ("killer", "0")
        assert in_order(world.rows("payments"), [n for n in range(30) if n != 13])
