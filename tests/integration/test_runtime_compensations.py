"""Steps and what undoes them, whatever comes first."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from choreo import Context, Failure, Retry, Service, testing
from choreo.dlq import Reason, Selection, dead_letters
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


# --- several runs of a step, one call a turn ------------------------------------------------------------------------


class NoRefund(Failure, topic="refunds", key="id"):
    """What a compensation says that is refused."""

    id: str


class RefusedError(Exception):
    """The bank does not want to."""


def bank(called, **options) -> Service:
    """Charges and refunds; `called` is awaited first in a refund, with what is undone and the context."""
    service = Service("payments", tables=TABLES)

    @service.on(Ordered)
    async def charge(order: Ordered, ctx: Context) -> Charged:
        await ctx.db.execute("INSERT INTO effects VALUES ($1, 1)", (order.id,))
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock, Rejected), **options)
    async def refund(charged: Charged, failure: Failure, ctx: Context) -> Refunded | NoRefund:
        await called(charged, ctx)
        await ctx.db.execute("INSERT INTO effects VALUES ($1, -1)", (charged.id,))
        return Refunded(id=charged.id)

    return service


async def ordered(world, many: int) -> str:
    """So many runs of the step in one saga; its correlation id."""
    saga = await world.publish(Ordered(id="o0"))
    for number in range(1, many):
        await world.publish(Ordered(id=f"o{number}"), correlation_id=saga.correlation_id)
    await world.settle()
    return saga.correlation_id


async def undone(world) -> list[str]:
    return [name for (name,) in await world.fetch("payments", "SELECT id FROM effects WHERE n < 0 ORDER BY id")]


async def test_each_of_several_runs_may_make_steps_and_then_write():
    asked = []

    async def called(charged, ctx):
        async def ask() -> str:
            asked.append((charged.id, ctx.idempotency_key))
            return charged.id

        assert await ctx.step("gateway", ask) == charged.id

    async with testing.running(bank(called, retry=AT_ONCE)) as world:
        saga = await ordered(world, 3)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.settle()
        assert await undone(world) == ["o0", "o1", "o2"]
        assert await world.fetch("payments", "SELECT count(*) FROM choreo_notes WHERE kind = 'gateway'") == [(0,)]
    assert sorted(name for name, _ in asked) == ["o0", "o1", "o2"]
    assert len({key for _, key in asked}) == 3


async def test_a_business_error_of_one_run_hides_no_other():
    async def called(charged, ctx):
        attempts.append((charged.id, ctx.attempt))
        if charged.id in {"o0", "o2"}:
            raise RefusedError(charged.id)

    attempts = []
    retry = Retry(business={RefusedError: lambda failure, error: NoRefund(id=str(error))})
    async with testing.running(bank(called, retry=retry)) as world:
        saga = await ordered(world, 4)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.settle()
        assert await undone(world) == ["o1", "o3"]
        assert sorted(event.id for event in world.emitted(NoRefund)) == ["o0", "o2"], "each an event of its own"
        assert sorted(event.id for event in world.emitted(Refunded)) == ["o1", "o3"]
    assert sorted(attempts) == [(f"o{number}", 1) for number in range(4)]


@pytest.mark.parametrize("point", ["before handler", "after handler", "before commit", "after commit", "after publish"])
async def test_a_crash_between_two_of_several_runs_undoes_each_once(point):
    async def called(charged, ctx):
        calls.append(charged.id)
        if len(calls) == 1:
            world.crash_at("payments", point)

    calls: list[str] = []
    async with testing.running(bank(called)) as world:
        saga = await ordered(world, 3)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.advance("1m")
        assert world.crashes == {"payments": 1}
        assert await undone(world) == ["o0", "o1", "o2"]
        assert sorted(event.id for event in world.emitted(Refunded)) == ["o0", "o1", "o2"]


async def test_attempts_are_counted_for_each_run():
    failed = []

    async def called(charged, ctx):
        if failed.count(charged.id) < 2:
            failed.append(charged.id)
            raise ConnectionError

    async with testing.running(bank(called, retry=AT_ONCE)) as world:
        saga = await ordered(world, 2)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.settle()
        assert await undone(world) == ["o0", "o1"]


async def test_it_keeps_its_key_when_another_failure_causes_it():
    keys = []

    async def called(charged, ctx):
        keys.append(ctx.idempotency_key)
        if len(keys) == 1:
            world.hold(OutOfStock, to="payments")
            world._network.holds = [hold for hold in world._network.holds if hold.event is OutOfStock]
            world.crash_at("payments", "after handler")

    async with testing.running(bank(called)) as world:
        saga = await ordered(world, 1)
        world.hold(Rejected, to="payments")
        await world.publish(Rejected(id="x"), correlation_id=saga)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.settle()
        assert world.crashes == {"payments": 1}
        assert await undone(world) == ["o0"], "by the other failure"
        await world.release(OutOfStock)
        await world.settle()
        assert await undone(world) == ["o0"]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_one_that_is_redriven_when_its_notes_are_gone_is_a_dead_letter_again():
    async def called(charged, ctx): ...

    async with testing.running(bank(called, retry=Retry(attempts=1)), dead_letters="keep") as world:
        saga = await ordered(world, 1)
        world.fail("refund", ValueError)
        await world.publish(OutOfStock(id="x"), correlation_id=saga)
        await world.settle()
        await world.fetch("payments", "DELETE FROM choreo_notes RETURNING number")
        selection = Selection(state="open")
        async with dead_letters(world.log, service="payments", values_of=selection) as letters:
            reason = Reason(kind="redriven", by="test", why="test")
            reports = [report async for report in letters.resolve(selection, reason)]
        assert reports[-1].resolved == 1
        await world.advance("1m")
        assert await undone(world) == []
        assert len(world.dead_letters) == 2
        assert "what payments.refund has to undo is not known any more" in world.dead_letters[-1].message
        assert world.dead_letters[-1].kind == "compensation"
