"""Steps and what undoes them, whatever comes first."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from choreo import Context, Retry, Service
from tests.integration.runtime_world import AT_ONCE, crash
from tests.integration.saga_world import (
    TABLES,
    Charged,
    Ordered,
    OutOfStock,
    Refunded,
    Rejected,
    tell,
)
from tests.support import eventually

FAILURES = [OutOfStock, Rejected]


def payments(**options) -> Service:
    service = Service("payments", tables=TABLES, **options)

    @service.on(Ordered)
    async def charge(order: Ordered, ctx: Context) -> Charged | None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))
        return Charged(id=order.id, n=order.n) if order.n >= 0 else None

    @service.compensates(charge, on=(OutOfStock, Rejected), retry=AT_ONCE)
    async def refund(charged: Charged, failure: OutOfStock | Rejected, ctx: Context) -> Refunded:
        await ctx.db.execute("INSERT INTO effects VALUES (?, -1)", (charged.id,))
        return Refunded(id=charged.id, n=charged.n)

    return service


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_finished_step_is_undone_once_and_says_what_it_undoes(world, failure):
    service = payments()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1", n=7))
        await world.read_to_the_end(service)
        assert world.rows("payments") == [("o1", 1)]
        await tell(world, "s1", failure(id="o1"))
        await world.read_to_the_end(service)
    assert world.rows("payments") == [("o1", 1), ("o1", -1)]
    (charged,), (refunded,) = await world.events("charges"), await world.events("refunds")
    assert refunded[1] == {"id": "o1", "n": 7}
    assert refunded[0]["compensates"] == charged[0]["id"]
    assert refunded[0]["correlationid"] == "s1"
    assert "compensates" not in charged[0]


async def test_a_failure_that_overtakes_the_step_keeps_it_from_starting(world):
    service = payments()
    async with world.running(service):
        await tell(world, "s1", OutOfStock(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", Ordered(id="o1"))
        await tell(world, "s2", Ordered(id="o2"))
        await world.read_to_the_end(service)
    assert world.rows("payments") == [("o2", 1)], "only the saga that has not failed"
    assert await world.records("refunds") == []


async def test_two_failures_undo_once_also_after_a_restart(world):
    service = payments()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"), OutOfStock(id="o1"), Rejected(id="o1"))
        await world.read_to_the_end(service)
    async with world.running(service):
        await tell(world, "s1", OutOfStock(id="o1"), Rejected(id="o1"))
        await world.read_to_the_end(service)
    assert sorted(world.rows("payments")) == [("o1", -1), ("o1", 1)]
    assert len(await world.records("refunds")) == 1


async def test_a_failure_published_twice_undoes_once(world):
    service = payments()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
        for _ in range(2):
            await tell(world, "s1", OutOfStock(id="o1"), event_id="the same")
        await world.read_to_the_end(service)
    assert sorted(world.rows("payments")) == [("o1", -1), ("o1", 1)]


async def test_what_emitted_nothing_to_undo_is_not_undone(world):
    service = payments()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1", n=-1), OutOfStock(id="o1"))
        await world.read_to_the_end(service)
    assert world.rows("payments") == [("o1", 1)]


async def test_every_run_of_a_step_is_undone_last_first(world):
    service = payments()
    async with world.running(service):
        for number in range(3):
            await tell(world, "s1", Ordered(id="o1", n=number))
            await world.read_to_the_end(service)
        await tell(world, "s1", OutOfStock(id="o1"))
        await world.read_to_the_end(service)
    refunds = await world.events("refunds")
    assert [data["n"] for _, data in refunds] == [2, 1, 0]
    assert len({about["id"] for about, _ in refunds}) == len({about["compensates"] for about, _ in refunds}) == 3


async def test_a_step_that_runs_while_its_saga_fails_ends_undone_or_not_started(memory_world):
    service = Service("payments", tables=TABLES)
    reached, go_on, runs = asyncio.Event(), asyncio.Event(), count()

    @service.on(Ordered)
    async def charge(order: Ordered, ctx: Context) -> Charged:
        next(runs)
        reached.set()
        await go_on.wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,))
    async def refund(charged: Charged, failure: OutOfStock, ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, -1)", (charged.id,))

    async with memory_world.running(service):
        await tell(memory_world, "s1", Ordered(id="o1"))
        await reached.wait()
        await tell(memory_world, "s1", OutOfStock(id="o1"))
        await eventually(lambda: memory_world.rows("payments", "SELECT kind FROM choreo_notes") == [("failed",)])
        go_on.set()
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [], "the failure came first"
    assert next(runs) == 1, "it was called before, and not again"


async def test_a_compensation_that_fails_for_good_is_the_loudest_dead_letter_and_can_be_redriven(world):
    service, calls = Service("payments", tables=TABLES), count()

    @service.on(Ordered)
    async def charge(order: Ordered, ctx: Context) -> Charged:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,), retry=Retry(attempts=2, delay=0, max_delay=0))
    async def refund(charged: Charged, failure: OutOfStock, ctx: Context) -> None:
        next(calls)
        raise ConnectionError("the bank is away")

    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", OutOfStock(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", Ordered(id="o1", n=2))
        await world.read_to_the_end(service)
    ((about, _),) = await world.letters("payments")
    assert about["choreo.dlq.kind"] == "compensation"
    assert about["choreo.dlq.handler"] == "refund"
    assert next(calls) == 2
    assert world.rows("payments") == [("o1", 1)], "and the step does not start again"


async def test_effects_happen_once_whatever_instance_dies_where(memory_world):
    """One dies with everything under way, the next one finds notes, inbox and outbox as they belong together."""
    service = payments()
    async with memory_world.running(service) as instances:
        sagas = [f"s{number}" for number in range(40)]
        for saga in sagas:
            await tell(memory_world, saga, Ordered(id=saga))
            if int(saga[1:]) % 2:
                await tell(memory_world, saga, OutOfStock(id=saga))
        await eventually(lambda: instances["payments"].stats.handled > 10)
        await crash(instances["payments"])
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    rows = memory_world.rows("payments")
    for saga in sagas:
        mine = sorted(n for each, n in rows if each == saga)
        assert mine == ([1] if int(saga[1:]) % 2 == 0 else []) or mine == [-1, 1]
        assert sum(mine) == (int(saga[1:]) + 1) % 2
