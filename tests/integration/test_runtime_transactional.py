"""Transactional services: what they read, what they emit and how far they have come, all or nothing.

There is no inbox behind them here: each test reads the log itself, where a doubled effect would show.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from choreo import Context, Retry, Service
from choreo.errors import LogUnavailableError, NotOwnerError
from choreo.log.port import TopicPartition
from choreo.runtime import recovery
from tests.integration.runtime_faults import Faults, FaultyLog
from tests.integration.runtime_world import AT_ONCE, Paid, Placed, Shipped, World, crash
from tests.support import eventually

KEYS = 7


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(recovery, "_MAX_DELAY", 0.01)


def payments(**options) -> Service:
    service, chance = Service("payments", transactional=True, **options), random.Random(2)

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed) -> Paid:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        return Paid(id=order.id, n=order.n)

    return service


def orders(first: int, last: int) -> list[Placed]:
    return [Placed(id=f"k{n % KEYS}", n=n) for n in range(first, last)]


async def read_to_the_end(world: World, group: str = "payments") -> None:
    """Wait until the group's positions are at the end of all its partitions, with no holes."""
    places = [TopicPartition("orders", n) for n in range(4)]
    ends = {at: (end, "") for at, end in (await world.log.end_offsets(places)).items() if end}

    async def is_done() -> bool:
        known = await world.log.committed(group, places)
        return ends == {at: position for at, position in known.items() if at in ends}

    await eventually(is_done, f"{group} has read to the end")


async def each_once_and_in_order(world: World, count: int) -> None:
    numbers = [data["n"] for _, data in await world.events("payments")]
    assert sorted(numbers) == list(range(count))
    for key in range(KEYS):
        assert [n for n in numbers if n % KEYS == key] == list(range(key, count, KEYS))


async def test_records_and_positions_go_together_and_a_restart_goes_on(world):
    service = payments()
    for first in (0, 100, 200):
        async with world.running(service) as instances:
            await world.publish(*orders(first, first + 100))
            await read_to_the_end(world)
        assert instances["payments"].stats.handled == 100, "what is committed is not handled again"
    await each_once_and_in_order(world, 300)


@pytest.mark.parametrize("point", ["transact", "transacted"])
@pytest.mark.parametrize("error", [LogUnavailableError("away"), NotOwnerError("a rebalance")], ids=["away", "fenced"])
async def test_a_transaction_that_fails_is_undone_and_its_records_are_handled_again(world, point, error):
    """Or was not undone, and nobody has heard of it: the positions in the log say which."""
    faults = Faults()
    faults.fail(point, error, times=3, after=1)
    faulty = World(FaultyLog(world.log, faults), world.folder)
    async with faulty.running(payments()):
        for first in range(0, 200, 20):
            await world.publish(*orders(first, first + 20))
        await eventually(lambda: faults.counts[point] > 4)
        await read_to_the_end(world)
    await each_once_and_in_order(world, 200)


@pytest.mark.parametrize("point", ["transact", "transacted"])
async def test_a_crash_around_a_commit_loses_and_doubles_nothing(world, point):
    faults, service = Faults(), payments()
    faulty = World(FaultyLog(world.log, faults), world.folder)
    await world.publish(*orders(0, 60))
    for count in (1, 2, 3):
        reached = faults.freeze(point, count)
        running = faulty.running(service, max_in_flight=7)
        instances = await running.__aenter__()
        async with asyncio.timeout(10):
            await reached.wait()
        faults.none()
        await crash(instances["payments"])
        await running.__aexit__(None, None, None)
    async with world.running(service):
        await read_to_the_end(world)
    await each_once_and_in_order(world, 60)


async def test_what_is_done_above_a_hole_is_not_done_again_after_a_crash(world):
    service, gate, handled = Service("payments", transactional=True), asyncio.Event(), []

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        if order.n == 0:
            await gate.wait()
        handled.append(order.n)
        return Paid(id=order.id, n=order.n)

    await world.publish(*(Placed(id="slow" if n % 5 == 0 else f"k{n}", n=n) for n in range(50)))
    quick = {n for n in range(50) if n % 5}

    async def published() -> bool:
        return len(await world.events("payments")) == len(quick)

    running = world.running(service)
    instances = await running.__aenter__()
    await eventually(lambda: set(handled) == quick)
    await eventually(published)
    await crash(instances["payments"])
    await running.__aexit__(None, None, None)
    handled.clear()
    gate.set()
    async with world.running(service):
        await read_to_the_end(world)
    assert handled == list(range(0, 50, 5))
    assert sorted(data["n"] for _, data in await world.events("payments")) == list(range(50))


async def test_the_effects_of_all_handlers_of_a_record_go_together(world):
    service, gate = Service("payments", transactional=True), asyncio.Event()
    second = asyncio.Event()

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id, n=order.n)

    @service.on(Placed)
    async def ship(order: Placed) -> Shipped:
        second.set()
        await gate.wait()
        return Shipped(id=order.id, n=order.n)

    running = world.running(service)
    instances = await running.__aenter__()
    await world.publish(Placed(id="o"))
    async with asyncio.timeout(10):
        await second.wait()
    await instances["payments"]._committer.commit()
    assert await world.records("payments") == []
    await crash(instances["payments"])
    await running.__aexit__(None, None, None)
    gate.set()
    async with world.running(service):
        await read_to_the_end(world)
    assert len(await world.records("payments")) == len(await world.records("shipments")) == 1


async def test_a_poison_record_becomes_a_dead_letter_in_the_same_transaction(world):
    service = Service("payments", transactional=True)

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed) -> Paid:
        if order.n == 3:
            raise ValueError("no")
        return Paid(id=order.id, n=order.n)

    async with world.running(service):
        await world.publish(*orders(0, 6))
        await read_to_the_end(world)
    ((about, _),) = await world.letters("payments")
    assert about["choreo.dlq.exception"] == "builtins.ValueError"
    assert sorted(data["n"] for _, data in await world.events("payments")) == [0, 1, 2, 4, 5]


async def test_a_handler_that_uses_ctx_db_is_told_that_there_is_none(memory_world):
    service = Service("payments", transactional=True)

    @service.on(Placed, retry=Retry(attempts=1))
    async def pay(order: Placed, ctx: Context) -> None:
        await ctx.db.execute("SELECT 1")

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await read_to_the_end(memory_world)
    ((about, _),) = await memory_world.letters("payments")
    assert "service 'payments' is transactional and has no ctx.db" in about["__dlq.errors.message"]


async def test_instances_that_come_and_go_double_and_lose_nothing(world):
    service = payments()
    async with world.running(service):
        for first in range(0, 300, 50):
            await world.publish(*orders(first, first + 50))
            async with world.running(service) as instances:
                await eventually(lambda instances=instances: len(instances["payments"]._owned) == 2)
        await read_to_the_end(world)
    await each_once_and_in_order(world, 300)


async def test_a_revoked_partition_waits_for_the_transaction_under_way(memory_world):
    faults, service = Faults(), payments()
    gate = asyncio.Event()
    faults.plan = lambda point, count: gate.wait() if (point, count) == ("transact", 1) else None
    faulty = World(FaultyLog(memory_world.log, faults), memory_world.folder)
    async with faulty.running(service) as first:
        await memory_world.publish(*orders(0, 40))
        await eventually(lambda: faults.counts["transact"])
        async with memory_world.running(service) as second:
            await eventually(first["payments"]._ownership.lock.locked)
            assert not second["payments"]._owned
            gate.set()
            await eventually(lambda: len(second["payments"]._owned) == 2)
            await read_to_the_end(memory_world)
    await each_once_and_in_order(memory_world, 40)
