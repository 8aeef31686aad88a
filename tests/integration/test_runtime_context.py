"""What `ctx` gives a handler: the event's metadata, the lifespan's state, and the store inside the transaction."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from choreo import Context, Retry, Service, SyncContext
from choreo.errors import ChoreoError, StoreError
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, effects_service
from tests.support import eventually


async def test_the_context_tells_about_the_event(memory_world):
    service, found = Service("payments"), []

    @service.on(Placed)
    async def look(order: Placed, ctx: Context) -> Paid:
        found.append(ctx)
        return Paid(id=order.id)

    @service.on(Paid)
    def look_again(paid: Paid, ctx: SyncContext) -> None:
        found.append(ctx)

    async with memory_world.running(service):
        (saga,) = await memory_world.publish(Placed(id="o"))
        await eventually(lambda: len(found) == 2)
    first, second = found
    ((about, _),) = await memory_world.events("orders")
    assert (first.event_id, first.correlation_id, first.causation_id) == (about["id"], saga, None)
    assert (second.correlation_id, second.causation_id) == (saga, first.event_id)
    assert first.attempt == second.attempt == 1
    assert first.time == datetime.fromisoformat(about["time"])
    assert first.time.tzinfo == UTC
    assert first.state is None
    assert len({first.idempotency_key, second.idempotency_key, first.event_id, second.event_id}) == 4
    assert first.log is first.log


async def test_the_lifespan_surrounds_all_handlers_and_is_left_before_the_store_closes(memory_world):
    told = []

    @contextlib.asynccontextmanager
    async def lifespan():
        told.append("in")
        yield {"client": 42}
        told.append("out")

    service = Service("payments", lifespan=lifespan)

    @service.on(Placed)
    async def use(order: Placed, ctx: Context) -> None:
        told.append(ctx.state["client"])

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await memory_world.read_to_the_end(service)
    assert told == ["in", 42, "out"]


async def test_a_lifespan_that_fails_at_start_is_an_error_and_frees_the_store(memory_world):
    @contextlib.asynccontextmanager
    async def lifespan():
        raise OSError("no gateway")
        yield

    service = effects_service(lifespan=lifespan)
    with pytest.raises(OSError, match="no gateway"):
        async with memory_world.running(service):
            pass
    async with memory_world.running(effects_service()):
        pass


async def test_an_instance_that_fails_while_it_begins_leaves_nothing_at_work(memory_world, monkeypatch):
    before = asyncio.all_tasks()
    monkeypatch.setattr("choreo.runtime.numbers.Numbers.show", lambda _: 1 / 0)  # its tasks are there then
    with pytest.raises(ZeroDivisionError):
        async with memory_world.running(effects_service()):
            pass
    assert asyncio.all_tasks() == before
    monkeypatch.undo()
    async with memory_world.running(effects_service()):
        pass


async def test_sub_tasks_of_one_handler_share_its_transaction(memory_world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=AT_ONCE)
    async def fan_out(order: Placed, ctx: Context) -> None:
        writes = (ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, n)) for n in range(10))
        await asyncio.gather(*writes)
        if order.id == "bad":
            raise ValueError("undo all ten")

    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id=name) for name in ("a", "bad", "b")))
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == [(name, n) for name in "ab" for n in range(10)]


async def test_sync_handlers_in_many_threads_write_their_own_and_nothing_else(memory_world):
    service = Service("payments", tables=TABLES, concurrency=16)

    @service.on(Placed, retry=Retry(attempts=1))
    def work(order: Placed, ctx: SyncContext) -> None:
        for n in range(3):
            ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, n))
        if order.n % 3 == 0:
            raise ValueError("undo")

    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(24)))
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == sorted(
        (f"o{n}", row) for n in range(24) if n % 3 for row in range(3)
    )
    assert len(await memory_world.letters("payments")) == 8


async def test_ctx_db_after_the_handler_is_refused_and_harms_nobody(memory_world):
    service = Service("payments", tables=TABLES)
    left, refusals, go = [], [], asyncio.Event()

    async def use_late(ctx: Context, *, entered: bool) -> None:
        if entered:
            await go.wait()
        try:
            await ctx.db.execute("INSERT INTO effects VALUES ('late', 0)")
        except ChoreoError as error:
            refusals.append(str(error))

    @service.on(Placed)
    async def forgetful(order: Placed, ctx: Context) -> None:
        left.append(asyncio.ensure_future(use_late(ctx, entered=order.n == 1)))
        if order.n == 1:
            await ctx.db.execute("INSERT INTO effects VALUES ('in time', 0)")

    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in (0, 1, 2)))
        await eventually(lambda: len(left) == 3)
        go.set()
        await asyncio.gather(*left)
        await memory_world.publish(Placed(id="next", n=1))
        await memory_world.read_to_the_end(service)
    assert len(refusals) >= 3
    assert all("after its handler had ended" in refusal for refusal in refusals)
    assert memory_world.rows("payments") == [("in time", 0), ("in time", 0)]


async def test_a_task_that_waits_for_ctx_db_when_its_handler_ends_gets_nothing(memory_world):
    """It must not take the store's connection with nobody left to give it back."""
    service = Service("payments", tables=TABLES)
    holding, release, left = asyncio.Event(), asyncio.Event(), []

    @service.on(Placed)
    async def work(order: Placed, ctx: Context) -> None:
        if order.id == "holder":
            await ctx.db.execute("INSERT INTO effects VALUES ('holder', 0)")
            holding.set()
            await release.wait()
        elif order.id == "leaver":
            await holding.wait()
            left.append(asyncio.ensure_future(ctx.db.execute("INSERT INTO effects VALUES ('leaver', 0)")))
            await asyncio.sleep(0)
        else:
            await ctx.db.execute("INSERT INTO effects VALUES (?, 0)", (order.id,))

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="holder"), Placed(id="leaver"))
        await eventually(lambda: left and instances["payments"].stats.handled == 1)
        release.set()
        (outcome,) = await asyncio.gather(*left, return_exceptions=True)
        assert isinstance(outcome, ChoreoError)
        await memory_world.publish(Placed(id="next"))
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [("holder", 0), ("next", 0)]


async def test_a_handler_that_would_commit_is_told_and_becomes_a_dead_letter(memory_world):
    service = Service("payments", tables=TABLES)

    @service.on(Placed, retry=AT_ONCE)
    async def commits(order: Placed, ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 0)", (order.id,))
        if order.id == "bad":
            await ctx.db.execute("COMMIT")

    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id=name) for name in ("a", "bad", "b")))
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == [("a", 0), ("b", 0)]
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.exception"].endswith(StoreError.__name__)
