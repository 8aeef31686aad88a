"""Handlers at work: what they get, what they emit, in which order they run."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections import defaultdict

import pytest

from choreo import Context, Retry, Service, SyncContext
from choreo.errors import UndeclaredEmissionError
from tests.integration.runtime_world import AT_ONCE, TABLES, Declined, Paid, Placed, Shipped
from tests.support import eventually


async def test_async_and_sync_handlers_write_and_emit(world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))
        return Paid(id=order.id)

    @service.on(Placed)
    def note(order: Placed, ctx: SyncContext) -> Shipped:
        assert threading.current_thread() is not threading.main_thread()
        ctx.db.execute("INSERT INTO effects VALUES (?, 2)", (order.id,))
        ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, 3), (order.id, 4)])
        assert ctx.db.fetch_one("SELECT count(*) FROM effects WHERE id = ? AND n > 1", (order.id,)) == (3,)
        assert len(ctx.db.fetch_all("SELECT * FROM effects WHERE id = ? AND n > 2", (order.id,))) == 2
        return Shipped(id=order.id)

    @service.on(Placed)
    def only_the_event(order: Placed) -> None:
        assert order.id

    orders = [f"o{number}" for number in range(20)]
    async with world.running(service) as instances:
        await world.publish(*(Placed(id=order) for order in orders))
        await eventually(lambda: instances["payments"].stats.handled == 60, lambda: instances["payments"].stats)
        await world.read_to_the_end(service)
    assert sorted(world.rows("payments")) == sorted((order, n) for order in orders for n in (1, 2, 3, 4))
    for topic in ("payments", "shipments"):
        assert sorted(data["id"] for _, data in await world.events(topic)) == sorted(orders)
    assert await world.records("dlq.payments") == []


@pytest.mark.parametrize(
    ("n", "topic", "count"),
    [(0, "payments", 0), (1, "payments", 1), (2, "payments", 1), (3, "shipments", 3), (4, "shipments", 0)],
    ids=["none", "one", "the other of a union", "a list", "an empty list"],
)
async def test_what_a_handler_returns_is_emitted(memory_world, n, topic, count):
    service = Service("payments")

    @service.on(Placed)
    async def decide(order: Placed) -> Paid | Declined | list[Shipped] | None:
        made = [Shipped(id=order.id, n=ordinal) for ordinal in range(3)]
        return [None, Paid(id=order.id), Declined(id=order.id), made, ()][order.n]

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o", n=n))
        await memory_world.read_to_the_end(service)
    assert len(await memory_world.records(topic)) == count
    assert await memory_world.records("dlq.payments") == []


@pytest.mark.parametrize("returned", ["one", "many", "nothing", "other"])
async def test_what_is_not_declared_becomes_a_dead_letter_and_leaves_no_effect(memory_world, returned):
    service = Service("payments", tables=TABLES)

    @service.on(Placed)
    async def lie(order: Placed, ctx: Context) -> Paid | list[Paid]:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 0)", (order.id,))
        values = {"one": Shipped(id="x"), "many": [Paid(id="x"), Shipped(id="x")], "nothing": None, "other": 42}
        return values[returned]  # type: ignore[return-value]

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.dead_letters == 1
    ((headers, record),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.stage"] == "emit"
    assert headers["choreo.dlq.handler"] == "lie"
    assert headers["__dlq.errors.delivery.count"] == "1"
    assert UndeclaredEmissionError.__name__ in headers["choreo.dlq.exception"]
    assert "payments.lie" in headers["__dlq.errors.message"]
    assert record.key == b"o"
    assert memory_world.rows("payments") == []
    assert await memory_world.records("payments") == []


async def test_order_per_key_is_kept_while_keys_run_at_once(world):
    service = Service("payments", concurrency=8)
    chance = random.Random(3)
    order, running, peak = defaultdict(list), set(), 0

    @service.on(Placed, retry=AT_ONCE)
    async def work(event: Placed, ctx: Context) -> None:
        nonlocal peak
        assert event.id not in running, "one at a time per key"
        running.add(event.id)
        peak = max(peak, len(running))
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if ctx.attempt == 1 and chance.random() < 0.1:
                raise RuntimeError("again")
            order[event.id].append(event.n)
        finally:
            running.discard(event.id)

    events = [Placed(id=f"k{number % 7}", n=number) for number in range(350)]
    async with world.running(service) as instances:
        await world.publish(*events)
        await eventually(lambda: instances["payments"].stats.handled == 350, lambda: instances["payments"].stats)
    assert dict(order) == {f"k{key}": list(range(key, 350, 7)) for key in range(7)}
    assert peak > 1
    assert instances["payments"].stats.retries > 0


async def test_a_slow_key_holds_up_nobody_else(memory_world):
    service = Service("payments")
    open_gate, done = asyncio.Event(), []

    @service.on(Placed)
    async def work(event: Placed) -> None:
        if event.id == "slow":
            await open_gate.wait()
        done.append((event.id, event.n))

    async with memory_world.running(service):
        await memory_world.publish(
            Placed(id="slow", n=1), Placed(id="slow", n=2), *(Placed(id=f"k{n}") for n in range(50))
        )
        await eventually(lambda: len(done) == 50)
        assert not [event for event in done if event[0] == "slow"]
        open_gate.set()
        await eventually(lambda: len(done) == 52)
    assert done[-2:] == [("slow", 1), ("slow", 2)]


# --- retries ----------------------------------------------------------------------------------------------------------


async def test_a_handler_that_recovers_is_tried_again_and_its_failures_leave_nothing(world):
    service = Service("payments", tables=TABLES)
    attempts, keys = [], set()

    @service.on(Placed, retry=Retry(attempts=4, delay="1ms", max_delay="2ms"))
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, ctx.attempt))
        attempts.append(ctx.attempt)
        keys.add(ctx.idempotency_key)
        if ctx.attempt < 4:
            raise TimeoutError("gateway")
        return Paid(id=order.id)

    async with world.running(service) as instances:
        await world.publish(Placed(id="o"))
        await world.read_to_the_end(service)
        assert instances["payments"].stats.retries == 3
    assert attempts == [1, 2, 3, 4]
    assert len(keys) == 1
    assert world.rows("payments") == [("o", 4)]
    assert len(await world.records("payments")) == 1
    assert await world.records("dlq.payments") == []


async def test_a_handler_that_never_recovers_ends_in_a_dead_letter_and_if_unordered_its_key_goes_on(world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=AT_ONCE, ordered=False)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if order.n == 1:
            raise TimeoutError("gateway")
        return Paid(id=order.id, n=order.n)

    async with world.running(service):
        (saga, *_) = await world.publish(*(Placed(id="o", n=n) for n in (1, 2, 3)))
        await world.read_to_the_end(service)
    ((headers, record),) = await world.letters("payments")
    original = (await world.records("orders"))[0]
    assert (record.key, record.value, record.timestamp) == (original.key, original.value, original.timestamp)
    assert record.headers[: len(original.headers)] == original.headers
    assert headers["ce_correlationid"] == saga
    assert headers["__dlq.errors.topic"] == "orders"
    assert headers["__dlq.errors.partition"] == str(original.partition)
    assert headers["__dlq.errors.offset"] == str(original.offset)
    assert headers["__dlq.errors.group"] == "payments"
    assert headers["__dlq.errors.delivery.count"] == "3"
    assert "gateway" in headers["__dlq.errors.message"]
    assert headers["choreo.dlq.exception"] == "builtins.TimeoutError"
    assert headers["choreo.dlq.stage"] == "handle"
    assert headers["choreo.dlq.handler"] == "pay"
    assert sorted(world.rows("payments")) == [("o", 2), ("o", 3)]
    assert sorted(data["n"] for _, data in await world.events("payments")) == [2, 3]


async def test_an_error_that_is_not_transient_is_not_tried_again(memory_world):
    service = Service("payments")
    attempts = []

    @service.on(Placed, retry=Retry(attempts=9, transient=(TimeoutError,)))
    async def pay(order: Placed, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("for good")

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await memory_world.read_to_the_end(service)
    assert attempts == [1]
    assert len(await memory_world.letters("payments")) == 1


async def test_of_two_handlers_of_one_event_one_fails_and_the_other_takes_effect_once(world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=AT_ONCE)
    async def fails(order: Placed, ctx: Context) -> Shipped:
        await ctx.db.execute("INSERT INTO effects VALUES ('fails', 0)")
        raise RuntimeError("no")

    @service.on(Placed, retry=AT_ONCE)
    async def works(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES ('works', 0)")
        return Paid(id=order.id)

    async with world.running(service):
        await world.publish(Placed(id="o"))
        await world.read_to_the_end(service)
    assert world.rows("payments") == [("works", 0)]
    assert [headers["choreo.dlq.handler"] for headers, _ in await world.letters("payments")] == ["fails"]
    assert len(await world.records("payments")) == 1
    assert await world.records("shipments") == []


# --- what handlers do that nobody expects ----------------------------------------------------------------------------


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class OddError(BaseException):
    """Not even an Exception."""


async def cancelled_from_inside() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def group_of_errors() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(fail(ValueError("a")))
        group.create_task(fail(OddError("b")))


async def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "misdeed",
    [
        cancelled_from_inside,
        group_of_errors,
        lambda: raise_it(MuteError()),
        lambda: raise_it(OddError()),
        lambda: raise_it(StopAsyncIteration()),
        lambda: raise_it(RecursionError()),
        lambda: raise_it(ValueError("half a pair \ud800")),
    ],
    ids=["cancelled", "group", "mute", "odd", "stop", "recursion", "text"],
)
async def test_whatever_a_handler_raises_is_a_dead_letter_and_the_service_goes_on(memory_world, misdeed):
    service = Service("payments", concurrency=1)

    @service.on(Placed, retry=AT_ONCE)
    async def misbehave(order: Placed) -> Paid:
        if order.n == 0:
            await misdeed()
        return Paid(id=order.id)

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o", n=0), Placed(id="p", n=1))
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.dead_letters == 1
    assert len(await memory_world.letters("payments")) == 1
    assert len(await memory_world.records("payments")) == 1


async def test_a_sync_handler_that_raises_stop_iteration_is_a_dead_letter(memory_world):
    service = Service("payments", concurrency=1)

    @service.on(Placed, retry=AT_ONCE)
    def misbehave(order: Placed) -> None:
        if order.n == 0:
            next(iter([]))

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o", n=0), Placed(id="p", n=1))
        await memory_world.read_to_the_end(service)
    ((headers, _),) = await memory_world.letters("payments")
    assert "StopIteration" in headers["__dlq.errors.message"]


# --- ids and traces ---------------------------------------------------------------------------------------------------


async def test_three_hops_keep_saga_cause_and_trace(world):
    first, second, last = Service("payments"), Service("shipping"), Service("mailing")
    seen = []

    @first.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    @second.on(Paid)
    async def ship(paid: Paid) -> list[Shipped]:
        return [Shipped(id=paid.id, n=1), Shipped(id=paid.id, n=2)]

    @last.on(Shipped)
    async def mail(shipped: Shipped, ctx: Context) -> None:
        seen.append((shipped.n, ctx.correlation_id, ctx.causation_id))

    async with world.running(first, second, last):
        (saga,) = await world.publish(Placed(id="o"))
        await eventually(lambda: len(seen) == 2)
    ((placed, _),) = await world.events("orders")
    ((paid, _),) = await world.events("payments")
    (one, _), (two, _) = await world.events("shipments")
    assert [each["correlationid"] for each in (placed, paid, one, two)] == [saga] * 4
    assert "causationid" not in placed
    assert paid["causationid"] == placed["id"]
    assert one["causationid"] == two["causationid"] == paid["id"]
    assert len({placed["id"], paid["id"], one["id"], two["id"]}) == 4
    assert [each["source"] for each in (placed, paid, one)] == ["test", "payments", "shipping"]
    assert seen == [(1, saga, paid["id"]), (2, saga, paid["id"])]


async def test_the_largest_event_is_counted_with_key_and_headers(memory_world):
    """Its value alone would fit, but its key stands in the record three times: the log would refuse it for ever."""
    service = Service("payments")

    @service.on(Placed, retry=AT_ONCE)
    async def grow(order: Placed) -> Paid:
        return Paid(id="x" * 600_000 if order.n else order.id)

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o", n=1), Placed(id="p", n=0))
        await memory_world.read_to_the_end(service)
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.stage"] == "emit"
    assert "bytes" in headers["__dlq.errors.message"]
    assert len(await memory_world.records("payments")) == 1


async def test_a_record_that_was_given_up_is_not_kept_in_memory(memory_world):
    """The cyclic collector comes late; records may be large, and all of them may fail."""
    service, events = Service("payments", concurrency=1), weakref.WeakSet()  # each worker remembers its last one

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed) -> None:
        events.add(order)
        raise ValueError(order.id)

    gc.disable()
    try:
        async with memory_world.running(service):
            await memory_world.publish(*(Placed(id=f"o{n}") for n in range(6)))
            await memory_world.read_to_the_end(service)
            await eventually(lambda: len(events) <= 1, lambda: len(events))
    finally:
        gc.enable()
    assert len(await memory_world.letters("payments")) == 6
