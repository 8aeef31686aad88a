"""Remembered steps of a handler (`ctx.step`), and sagas that handlers begin."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from pydantic import BaseModel

from choreo import Context, Retry, Service, SyncContext, connect
from tests.integration.runtime_world import AT_ONCE, TABLES, Declined, Paid, Placed, Shipped, crash
from tests.support import eventually


class Quote(BaseModel):
    """A result of an outside call."""

    price: Decimal
    parts: tuple[int, ...]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_step_that_is_done_is_not_done_again_in_a_later_attempt(world, kind):
    service, asked, seen = Service("claims", tables=TABLES), [], []

    def price(order: str) -> Quote:
        asked.append("price")
        return Quote(price=Decimal("12.50"), parts=(len(order),))

    async def book(quote: Quote) -> str:
        asked.append("book")
        if asked.count("book") < 3:
            raise ConnectionError
        return f"b-{quote.price}"

    if kind == "async":

        @service.on(Placed, retry=AT_ONCE)
        async def decide(order: Placed, ctx: Context) -> Paid:
            quote = await ctx.step("price", price, order.id)
            seen.append((quote, await ctx.step("book", book, quote)))
            await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, 1))
            return Paid(id=order.id)
    else:

        @service.on(Placed, retry=AT_ONCE)
        def decide(order: Placed, ctx: SyncContext) -> Paid:
            quote = ctx.step("price", price, order.id)
            seen.append((quote, ctx.step("book", lambda: asyncio.run(book(quote)))))
            ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, 1))
            return Paid(id=order.id)

    async with world.running(service):
        await world.publish(Placed(id="o1"))
        await world.read_to_the_end(service)
    assert asked == ["price", "book", "book", "book"]
    assert seen == [(Quote(price=Decimal("12.50"), parts=(2,)), "b-12.50")]
    assert world.rows("claims") == [("o1", 1)]
    assert world.rows("claims", "SELECT count(*) FROM choreo_notes") == [(0,)], "nothing is remembered for longer"


async def test_it_is_remembered_across_a_crash(memory_world):
    asked, reached = [], asyncio.Event()
    service = Service("claims", tables=TABLES)

    async def price() -> int:
        asked.append("price")
        return 7

    async def wait() -> None:
        reached.set()
        if asked.count("wait") == 0:
            asked.append("wait")
            await asyncio.Event().wait()

    @service.on(Placed)
    async def decide(order: Placed, ctx: Context) -> Paid:
        found = await ctx.step("price", price)
        await ctx.step("wait", wait)
        return Paid(id=order.id, n=found)

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o1"))
        await reached.wait()
        await crash(instances["claims"])
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert asked == ["price", "wait"]
    assert [data["n"] for _, data in await memory_world.events("payments")] == [7]


async def test_what_an_earlier_attempt_has_left_is_forgotten_too(memory_world):
    service, calls = Service("claims", tables=TABLES), []

    @service.on(Placed, retry=AT_ONCE)
    async def decide(order: Placed, ctx: Context) -> None:
        calls.append(await ctx.step("price", lambda: 7, returns=int))
        if len(calls) < 2:
            raise ConnectionError

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o1"))
        await memory_world.read_to_the_end(service)
    assert calls == [7, 7]
    assert memory_world.rows("claims", "SELECT count(*) FROM choreo_notes") == [(0,)]


async def test_what_is_remembered_is_forgotten_after_a_declared_failure_too(memory_world):
    service = Service("claims", tables=TABLES)

    @service.on(Placed, retry=Retry(business={ValueError: lambda order, _: Declined(id=order.id)}))
    async def decide(order: Placed, ctx: Context) -> Declined | None:
        await ctx.step("price", lambda: 7, returns=int)
        raise ValueError

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o1"))
        await memory_world.read_to_the_end(service)
    assert len(await memory_world.events("payments")) == 1
    assert memory_world.rows("claims", "SELECT count(*) FROM choreo_notes") == [(0,)]


@pytest.mark.parametrize("wrong", ["twice", "after the database", "no json"])
async def test_misuse_is_told(memory_world, wrong):
    service = Service("claims", tables=TABLES)

    @service.on(Placed, retry=Retry(attempts=1))
    async def decide(order: Placed, ctx: Context) -> None:
        if wrong == "after the database":
            await ctx.db.execute("INSERT INTO effects VALUES ('x', 1)")
        await ctx.step("one", object if wrong == "no json" else int)
        await ctx.step("one", int)

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o1"))
        await memory_world.read_to_the_end(service)
    ((about, _),) = await memory_world.letters("claims")
    told = {
        "twice": "comes twice",
        "after the database": "after the first use of ctx.db",
        "no json": "cannot be remembered",
    }
    assert told[wrong] in about["__dlq.errors.message"]
    assert memory_world.rows("claims") == []


@pytest.mark.parametrize("first", ["step", "database"])
async def test_a_step_beside_the_database_is_refused_at_once(memory_world, monkeypatch, first):
    """Else each would wait for the other until the handler is ended."""
    monkeypatch.setattr("choreo.runtime.watchdog.HOLD_LIMIT", 60.0)
    service, asked = Service("claims", tables=TABLES), []

    async def ask() -> str:
        asked.append(first)
        await asyncio.sleep(0)
        return "answer"

    @service.on(Placed, retry=Retry(attempts=1))
    async def decide(order: Placed, ctx: Context) -> None:
        work = [ctx.step("ask", ask), ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (order.id,))]
        await asyncio.gather(*(work if first == "step" else reversed(work)))

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o1"))
        await memory_world.read_to_the_end(service)
    ((about, _),) = await memory_world.letters("claims")
    told = "after the first use of ctx.db" if first == "database" else "while another task of the handler uses ctx.db"
    assert told in about["__dlq.errors.message"]
    assert memory_world.rows("claims") == []
    assert asked == (["step"] if first == "step" else []), "nothing outside is called whose result could not be kept"


async def test_a_handler_begins_sagas_that_know_their_parent(world):
    service, made = Service("orders"), []

    @service.on(Placed, retry=AT_ONCE)
    async def split(order: Placed, ctx: Context) -> Paid | Shipped:
        made.append([ctx.start_saga(Shipped(id=f"{order.id}-{n}", n=n)) for n in range(2)])
        if len(made) < 2:
            raise ConnectionError
        return Paid(id=order.id)

    async with world.running(service):
        (saga,) = await world.publish(Placed(id="o1"))
        await world.read_to_the_end(service)
        await eventually(lambda: len(made) == 2)
        await world.read_to_the_end(service)
    begun = await world.events("shipments")
    assert made[0] == made[1] == [about["correlationid"] for about, _ in sorted(begun, key=lambda each: each[1]["n"])]
    for about, _ in begun:
        assert about["id"] == about["correlationid"] != saga
        assert about["parentid"] == saga
    ((paid, _),) = await world.events("payments")
    assert paid["correlationid"] == saga
    assert "parentid" not in paid


async def test_a_saga_of_an_undeclared_event_is_a_dead_letter(memory_world):
    service = Service("orders")

    @service.on(Placed, retry=Retry(attempts=1, transient=()))
    async def split(order: Placed, ctx: Context) -> None:
        ctx.start_saga(Shipped(id=order.id))

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o1"))
        await memory_world.read_to_the_end(service)
    ((about, _),) = await memory_world.letters("orders")
    assert about["choreo.dlq.kind"] == "undeclared"


async def test_a_saga_published_from_outside_names_its_parent(memory_world):
    service = Service("orders")

    @service.on(Placed)
    async def nothing(order: Placed) -> None: ...

    async with memory_world.running(service):
        async with connect(memory_world.settings(), source="test", log=memory_world.log) as bus:
            saga = await bus.publish(Placed(id="o1"))
            child = await bus.publish(Placed(id="o2"), parent=saga)
        await memory_world.read_to_the_end(service)
    parents = {about["id"]: about.get("parentid") for about, _ in await memory_world.events("orders")}
    assert parents == {saga: None, child: saga}
