"""Services over PostgreSQL stores: crashes at every point, several instances, a database that goes away."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from choreo import Service
from choreo.log import open_log
from choreo.log.memory import MemoryLog
from choreo.log.port import Log, TopicPartition
from choreo.runtime import instance, recovery
from choreo.store import make_store
from tests.integration.postgres_world import TABLES, PostgresWorld
from tests.integration.runtime_faults import Faults, FaultyLog, FaultyStore
from tests.integration.runtime_world import AT_ONCE, Paid, Placed, crash, unique
from tests.servers.postgres import PostgresServer
from tests.support import eventually

ORDERS = [Placed(id=f"o{number}", n=number) for number in range(12)]
POINTS = ["take_over", "taken_over", "begin", "commit", "committed", "append", "appended"]
"""Where an instance dies; see `runtime_faults`."""


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    file = f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    async with MemoryLog() if request.param == "memory" else open_log(file) as log:
        yield log


@pytest.fixture
def world(log: Log, tmp_path: Path, postgres_url: str) -> Iterator[PostgresWorld]:
    world = PostgresWorld(log, tmp_path, postgres_url, f"test_{uuid4().hex[:12]}")
    yield world
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for service in ("payments", "shipping"):
            connection.execute(f"DROP SCHEMA IF EXISTS {world.schemas}_{service} CASCADE")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    faults = Faults()

    def make(url: str) -> Any:
        return FaultyStore(make_store(url), faults)

    monkeypatch.setattr(instance, "make_store", make)
    return faults


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits before the next attempt."""
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(recovery, "_MAX_DELAY", 0.05)
    monkeypatch.setattr("choreo.runtime.ownership._RETRY_DELAY", 0.05)


def effects_service() -> Service:
    """A service that writes each order into its table and emits a payment."""
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Any) -> Paid:
        await ctx.db.execute("INSERT INTO effects (id, n) VALUES (%s, %s)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    return service


def faulty(world: PostgresWorld, faults: Faults) -> PostgresWorld:
    return PostgresWorld(FaultyLog(world.log, faults), world.folder, world.url, world.schemas)


async def once(world: PostgresWorld, orders: list[Placed]) -> None:
    """Every order has had its effect once, and its payment is in the log; nothing is a dead letter."""
    assert Counter(world.rows("payments")) == Counter((order.id, order.n) for order in orders)
    payments = unique(await world.events("payments"))
    assert Counter(data["n"] for data in payments.values()) == Counter(order.n for order in orders)
    assert await world.letters("payments") == []


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_loses_and_doubles_nothing(world, faults, point):
    service = effects_service()
    reached = faults.freeze(point)
    async with faulty(world, faults).running(service) as instances:
        await world.publish(*ORDERS)
        await eventually(reached.is_set)
        await crash(instances["payments"])
        faults.none()
    async with world.running(service):
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT id FROM choreo_outbox") == [])
    await once(world, ORDERS)


async def test_a_chain_of_crashes_at_random_points(world, faults, monkeypatch):
    monkeypatch.setattr("choreo.runtime.ownership._DEATHS", 99)  # no record is to blame
    service, chance = effects_service(), random.Random(5)
    orders = [Placed(id=f"k{n % 5}", n=n) for n in range(100)]
    async with world.running(service):
        pass  # makes the topics
    await world.publish(*orders)
    for _ in range(6):
        reached = faults.freeze(chance.choice(POINTS))
        async with faulty(world, faults).running(service, max_in_flight=10) as instances:
            await eventually(reached.is_set)
            await crash(instances["payments"])
        faults.none()
    async with world.running(service):
        await world.read_to_the_end(service)
    for key in range(5):
        in_order = [n for name, n in world.rows("payments") if name == f"k{key}"]
        assert in_order == list(range(key, 100, 5)), "order per key"
    await once(world, orders)


# --- several instances ------------------------------------------------------------------------------------------------


async def test_instances_share_a_database_come_and_go_and_double_nothing(world):
    service = effects_service()
    orders = [Placed(id=f"k{n % 16}", n=n) for n in range(200)]
    async with world.running(service) as first:
        async with world.running(service) as second:
            both = [first["payments"], second["payments"]]
            await eventually(lambda: all(each._owned for each in both))
            await world.publish(*orders[:100])
            await world.read_to_the_end(service)
            await world.publish(*orders[100:150])
        await world.publish(*orders[150:])
        await world.read_to_the_end(service)
    assert world.rows("payments", "SELECT sum(deaths) FROM choreo_progress") == [(0,)], "both gave back what they had"
    await once(world, orders)


async def test_a_zombie_has_no_effect_and_a_partition_fenced_by_mistake_comes_back(world, monkeypatch):
    service = effects_service()
    async with world.running(service):
        await world.publish(*ORDERS[:6])
        await world.read_to_the_end(service)
        thief = make_store(world.settings().store_of("payments", None))
        await thief.open("payments")
        await thief.take_over([TopicPartition("orders", number) for number in range(4)])
        await thief.close()
        await world.publish(*ORDERS[6:])
        await world.read_to_the_end(service)
    await once(world, ORDERS)


# --- a database that goes away ----------------------------------------------------------------------------------------


async def cut(world: PostgresWorld) -> None:
    """End every session of the services."""
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'choreo %'"
        )


async def test_cut_connections_lose_and_double_nothing(log, tmp_path, own_postgres, impatient):
    own_postgres.ensure_running()
    world = PostgresWorld(log, tmp_path, own_postgres.url, f"test_{uuid4().hex[:12]}")
    service = effects_service()
    orders = [Placed(id=f"k{n % 7}", n=n) for n in range(300)]
    async with world.running(service):
        for start in range(0, 300, 30):
            await world.publish(*orders[start : start + 30])
            await cut(world)
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT id FROM choreo_outbox") == [])
    await once(world, orders)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_while_the_database_is_down_the_service_pauses_and_then_goes_on(
    log, tmp_path, own_postgres: PostgresServer, impatient, end
):
    own_postgres.ensure_running()
    world = PostgresWorld(log, tmp_path, own_postgres.url, f"test_{uuid4().hex[:12]}")
    service = effects_service()
    async with world.running(service) as instances:
        await world.publish(*ORDERS[:4])
        await world.read_to_the_end(service)
        getattr(own_postgres, end)()
        await world.publish(*ORDERS[4:])
        await eventually(lambda: instances["payments"]._recovery._last_ms)  # it has noticed
        own_postgres.start()
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("payments", "SELECT id FROM choreo_outbox") == [])
    await once(world, ORDERS)
