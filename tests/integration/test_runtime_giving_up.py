"""Everything under way is given up, by a failed transaction, while something else is in the middle of its work."""

from __future__ import annotations

import asyncio

import pytest

from choreo import Context, Service
from choreo.errors import StoreUnavailableError
from choreo.runtime.instance import Instance
from tests.integration.runtime_faults import Faults, plant
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, World
from tests.integration.test_runtime_parking import Flaky, come_back, parked
from tests.support import eventually

AWAY = StoreUnavailableError("the store is away", remedy="wait")


@pytest.fixture
def faults(monkeypatch) -> Faults:
    faults = Faults()
    plant(monkeypatch, faults)
    return faults


async def test_a_commit_that_fails_while_a_partition_is_being_given_back_loses_nothing(memory_world, faults):
    """What the failed transaction had finished in it must not pass for done in the next one."""
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}
    service = Service("payments", tables=TABLES)

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await gates[order.id].wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        await _in_one_partition(memory_world, instance)
        (at,) = [at for at, partition in instance._owned.items() if partition.running]
        partition = instance._owned[at]
        going = asyncio.create_task(instance._ownership.revoked([at]))
        await eventually(partition.leaving.is_set)
        faults.fail("commit", AWAY)
        gates["a"].set()
        await eventually(lambda: faults.counts["commit"])
        gates["b"].set()
        await going
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == [("a", 0), ("b", 0)]


async def _in_one_partition(world: World, instance: Instance) -> None:
    """Orders a and b, both being handled, in one partition."""
    await world.publish(Placed(id="a"))
    (first,) = await world.records("orders")
    await world.publish(Placed(id="b"))
    await eventually(lambda: sum(one.running for one in instance._owned.values()) == 2)
    places = {record.partition for record in await world.records("orders")}
    assert places == {first.partition}, "choose other keys"


async def test_a_record_is_not_put_behind_its_key_by_who_was_given_up_meanwhile(memory_world, faults, monkeypatch):
    """Its partition's progress holds records of a transaction that was undone."""
    flaky = Flaky(AT_ONCE, bad={1})
    async with memory_world.running(flaky.service) as instances:
        instance = instances["payments"]
        await memory_world.publish(Placed(id="a", n=1))
        await eventually(lambda: parked(memory_world) == [("pay", 0)])
        asked, answer = asyncio.Event(), asyncio.Event()
        behind = instance._store.behind

        async def slow(*arguments):
            asked.set()
            await answer.wait()
            return await behind(*arguments)

        monkeypatch.setattr(instance._store, "behind", slow, raising=False)
        await memory_world.publish(Placed(id="a", n=2))
        await asked.wait()
        instance._recovery.fail(AWAY)
        unit = instance._unit
        pending = unit._pending
        answer.set()
        await eventually(lambda: not unit.lock.locked())
        assert not pending.behind
        assert not pending.partitions
        await eventually(lambda: parked(memory_world) == [("pay", 1)])


async def test_a_key_is_not_released_by_who_could_not_commit_what_he_did(memory_world, faults):
    flaky = Flaky(AT_ONCE, bad={1})
    async with memory_world.running(flaky.service):
        await memory_world.publish(Placed(id="a", n=1))
        (letter,) = await eventually(lambda: memory_world.records("dlq.payments"))
        await eventually(lambda: parked(memory_world) == [("pay", 0)])
        flaky.bad.clear()
        released_with = []
        faults.fail("commit", AWAY)
        planned = faults.plan

        def plan(point: str, count: int) -> None:
            if point == "release":
                released_with.append(memory_world.rows("payments"))
            return planned(point, count)

        faults.plan = plan
        await come_back(memory_world, letter)
        await eventually(lambda: not parked(memory_world))
    assert released_with == [[("a", 1)]], "nothing is released before its head has taken effect"
