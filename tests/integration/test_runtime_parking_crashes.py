"""Parked keys while instances crash, join and leave: nothing lost, nothing doubled, order kept."""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from choreo import Context, Retry, Service
from choreo.runtime.instance import Instance
from tests.integration.runtime_faults import Faults, FaultyLog, plant
from tests.integration.runtime_world import TABLES, Paid, Placed, World, crash
from tests.integration.test_runtime_parking import by_key, come_back, parked
from tests.support import eventually

POINTS = ("begin", "commit", "committed", "release", "released", "append", "appended")
KEYS, ORDERS = 4, 60


def flaky_service(seed: int, *, fatal: float = 0.0) -> Service:
    """Each call fails with some likelihood, decided anew at each attempt."""
    chance, service = random.Random(seed), Service("payments", tables=TABLES)

    @service.on(Placed, retry=Retry(attempts=40, delay="4ms", max_delay="4ms", in_place=0, fatal=(ValueError,)))
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if chance.random() < fatal:
            raise ValueError("for good")
        if chance.random() < 0.25:
            raise TimeoutError("gateway")
        return Paid(id=order.id, n=order.n)

    return service


async def redrive_all(world: World, done: set[tuple[int, int]]) -> None:
    """Let every dead letter come back that has not."""
    if "dlq.payments" in await world.log.topics():
        letters = await world.records("dlq.payments")
        fresh = [record for record in letters if (record.partition, record.offset) not in done]
        done.update((record.partition, record.offset) for record in fresh)
        await come_back(world, *fresh)


async def is_still(world: World, redriven: set[tuple[int, int]], instance: Instance) -> bool:
    """Whether all orders are handled, or no other can be until a dead letter comes back."""
    handled = len(world.rows("payments"))
    if handled == ORDERS:
        return True
    if "dlq.payments" not in await world.log.topics() or instance._publisher.backlog:
        return False
    letters = await world.records("dlq.payments")
    dead = {dict(letter.headers)["ce_id"] for letter in letters if (letter.partition, letter.offset) not in redriven}
    heads = {head.encode() for (head,) in world.rows("payments", "SELECT head FROM choreo_parked")}
    return heads <= dead and handled + sum(1 + behind for _, behind in parked(world)) == ORDERS


async def everything_once_and_in_order(world: World, redriven: set[tuple[int, int]] | None = None) -> None:
    async def is_done() -> bool:
        if redriven is not None:
            await redrive_all(world, redriven)
        return len(world.rows("payments")) >= ORDERS and not parked(world)

    await eventually(is_done, lambda: (len(world.rows("payments")), parked(world)))
    wanted = {f"k{key}": list(range(key, ORDERS, KEYS)) for key in range(KEYS)}
    assert by_key(world.rows("payments")) == wanted, "once, in order"


async def emitted_in_order(world: World) -> None:
    emitted = list(dict.fromkeys((data["id"], data["n"]) for _, data in await world.events("payments")))
    assert by_key(emitted) == {f"k{key}": list(range(key, ORDERS, KEYS)) for key in range(KEYS)}


@pytest.fixture
def faults(monkeypatch) -> Faults:
    """Faults in every instance of `payments` that is started from now on."""
    made = Faults()
    plant(monkeypatch, made)
    return made


@pytest.mark.parametrize("seed", range(3))
async def test_crashes_at_random_points(memory_world, faults, seed):
    chance, redriven = random.Random(seed), set[tuple[int, int]]()
    world = World(FaultyLog(memory_world.log, faults), memory_world.folder)
    async with world.running(flaky_service(seed)):
        await memory_world.publish(*(Placed(id=f"k{n % KEYS}", n=n) for n in range(ORDERS)))
    for round_ in range(8):
        reached = faults.freeze(chance.choice(POINTS), chance.randrange(1, 8))
        async with world.running(flaky_service(seed + round_, fatal=0.02), max_in_flight=10) as instances:
            ended = asyncio.ensure_future(reached.wait())
            still = asyncio.ensure_future(eventually(partial(is_still, memory_world, redriven, instances["payments"])))
            await asyncio.wait({ended, still}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel(), still.cancel()
            await crash(instances["payments"])
        faults.none()
        await redrive_all(memory_world, redriven)
    async with world.running(flaky_service(99)) as instances:
        await everything_once_and_in_order(memory_world, redriven)
        await eventually(lambda: not instances["payments"]._publisher.backlog)
    await emitted_in_order(memory_world)


@pytest.mark.parametrize("seed", range(3))
async def test_instances_that_come_and_go(memory_world, seed):
    chance, redriven = random.Random(seed), set[tuple[int, int]]()

    async def guest(number: int) -> None:
        async with memory_world.running(flaky_service(seed + number, fatal=0.02)):
            await asyncio.sleep(chance.random() / 5)

    async with memory_world.running(flaky_service(seed, fatal=0.02)) as instances:
        for number in range(4):
            first = ORDERS // 4 * number
            await memory_world.publish(*(Placed(id=f"k{n % KEYS}", n=n) for n in range(first, first + ORDERS // 4)))
            await asyncio.gather(guest(2 * number), guest(2 * number + 1))
            await redrive_all(memory_world, redriven)
        await everything_once_and_in_order(memory_world, redriven)
        await eventually(lambda: not instances["payments"]._publisher.backlog)
    await emitted_in_order(memory_world)
