"""Publishing from outside a handler."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.trace import TracerProvider

from choreo import Context, Service, connect, connect_sync
from choreo.errors import ConfigurationError, RecordTooLargeError, UnknownTopicError
from choreo.log import open_log
from tests.integration.runtime_world import Paid, Placed, Shipped, World
from tests.support import eventually


async def test_each_publish_begins_a_saga_unless_it_goes_on_with_one(memory_world):
    async with connect(memory_world.settings(), source="web", log=memory_world.log) as bus:
        first = await bus.publish(Placed(id="a"))
        second = await bus.publish(Placed(id="a"))
        assert await bus.publish(Paid(id="a"), correlation_id=first) == first
    (a, _), (b, _) = await memory_world.events("orders")
    ((paid, _),) = await memory_world.events("payments")
    assert [a["correlationid"], b["correlationid"]] == [first, second] == [a["id"], b["id"]]
    assert paid["correlationid"] == first
    assert paid["id"] != first
    assert {a["source"], b["source"], paid["source"]} == {"web"}
    assert a["subject"] == "a"
    assert "causationid" not in a


async def test_an_id_of_ones_own_is_kept_and_names_the_saga(memory_world):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        assert await bus.publish(Placed(id="a"), event_id="request-7") == "request-7"
        assert await bus.publish(Placed(id="a"), event_id="request-8", correlation_id="saga") == "saga"
    assert [about["id"] for about, _ in await memory_world.events("orders")] == ["request-7", "request-8"]


async def test_many_events_keep_their_order_per_key_and_get_a_saga_each(memory_world):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        sagas = await bus.publish_many([Placed(id=f"k{n % 3}", n=n) for n in range(30)] + [Shipped(id="s")])
        assert await bus.publish_many([]) == []
    events = await memory_world.events("orders")
    by_number = {data["n"]: about["correlationid"] for about, data in events}
    assert [by_number[n] for n in range(30)] == sagas[:30]
    assert len(set(sagas)) == 31
    for key in range(3):
        assert [data["n"] for _, data in events if data["id"] == f"k{key}"] == list(range(key, 30, 3))


async def test_a_bus_that_is_not_connected_says_so(memory_world):
    bus = connect(memory_world.settings(), log=memory_world.log)
    with pytest.raises(ConfigurationError, match="not connected"):
        await bus.publish(Placed(id="a"))
    async with bus:
        await bus.publish(Placed(id="a"))
    with pytest.raises(ConfigurationError, match="not connected"):
        await bus.publish(Placed(id="a"))


async def test_of_many_events_one_of_which_is_too_large_none_is_published(memory_world):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        with pytest.raises(RecordTooLargeError, match=r"orders.*send a reference"):
            await bus.publish_many([Placed(id="a"), Placed(id="b" * 10_000_000)])
    assert await memory_world.records("orders") == []


async def test_missing_topics_are_named_where_they_are_not_made(memory_world):
    async with connect(memory_world.settings(create_topics=False), log=memory_world.log) as bus:
        with pytest.raises(UnknownTopicError, match=r"orders.*choreo topics create"):
            await bus.publish(Placed(id="a"))
    assert await memory_world.log.topics() == {}


async def test_many_tasks_publish_over_one_bus(memory_world):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        sagas = await asyncio.gather(*(bus.publish(Placed(id=f"o{n}")) for n in range(50)))
    assert sorted(sagas) == sorted(about["id"] for about, _ in await memory_world.events("orders"))


def test_publishing_without_an_event_loop_from_several_threads(tmp_path):
    settings = World(None, tmp_path).settings(log=f"sqlite:///{tmp_path}/log.db")  # type: ignore[arg-type]
    with connect_sync(settings, source="script") as bus, ThreadPoolExecutor(4) as threads:
        saga = bus.publish(Placed(id="a"), event_id="mine")
        assert saga == "mine"
        assert bus.publish(Paid(id="a"), correlation_id=saga) == saga
        many = [
            each
            for some in threads.map(bus.publish_many, [[Placed(id=f"o{n}")] * 3 for n in range(8)])
            for each in some
        ]
        assert len(set(many)) == 24
        with pytest.raises(RecordTooLargeError):
            bus.publish(Placed(id="b" * 10_000_000))

    async def look() -> None:
        async with open_log(settings.log) as log:
            world = World(log, tmp_path)
            assert len(await world.records("orders")) == 25
            ((paid, _),) = await world.events("payments")
            assert (paid["source"], paid["correlationid"]) == ("script", "mine")

    asyncio.run(look())


def test_a_sync_bus_that_cannot_connect_says_why_and_leaves_no_thread(tmp_path):
    (tmp_path / "log.db").write_text("this is no database, however long one looks at it" * 10)
    settings = World(None, tmp_path).settings(log=f"sqlite:///{tmp_path}/log.db")  # type: ignore[arg-type]
    bus = connect_sync(settings)
    with pytest.raises(ConfigurationError, match="no SQLite file"), bus:
        pass
    assert not bus._thread.is_alive()


async def test_the_trace_of_whoever_publishes_goes_through_all_hops(memory_world):
    service, other, done = Service("payments"), Service("shipping"), []

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    @other.on(Paid)
    async def ship(paid: Paid, ctx: Context) -> Shipped:
        return Shipped(id=paid.id)

    @other.on(Shipped)
    async def end(shipped: Shipped) -> None:
        done.append(shipped)

    tracer = TracerProvider().get_tracer("test")
    async with memory_world.running(service, other):
        with tracer.start_as_current_span("request") as span:
            await memory_world.publish(Placed(id="o"))
        await eventually(lambda: done)
    trace = f"{span.get_span_context().trace_id:032x}"
    for topic in ("orders", "payments", "shipments"):
        (record,) = await memory_world.records(topic)
        assert dict(record.headers)["traceparent"].decode().split("-")[1] == trace
