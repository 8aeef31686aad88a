"""Deadlines and reminders, with a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from choreo import Context, Event, Retry, Service, connect
from choreo.runtime import bus, instance
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_world import AT_ONCE
from tests.integration.saga_world import TABLES, Ordered, Rejected, Sent
from tests.support import eventually

MINUTE = 60.0


class Expired(Event, topic="expiries", key="id"):
    """What a deadline emits."""

    id: str


@pytest.fixture
def clock(monkeypatch):
    turned = TurnedClock()
    monkeypatch.setattr(instance, "SystemClock", lambda: turned)
    monkeypatch.setattr(bus, "SystemClock", lambda: turned)
    return turned


async def tell(world, saga, *events):
    async with connect(world.settings(), source="test", log=world.log) as opened:
        for event in events:
            await opened.publish(event, correlation_id=saga)


def orders(**options) -> Service:
    service = Service("orders", tables=TABLES)

    @service.deadline(Ordered, **({"within": "15m", "unless": (Sent, Rejected)} | options))
    async def expire(order: Ordered, ctx: Context) -> Expired:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Expired(id=order.id)

    return service


async def pass_time(world, service, clock, seconds):
    """Let time pass, and what is due then happen."""
    clock.turn(seconds)
    for _ in range(20):
        clock.turn(0.05)  # internal looks
        await asyncio.sleep(0.005)
    await world.read_to_the_end(service)


async def test_it_is_called_when_the_time_is_over_and_not_before(world, clock):
    service = orders()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1", n=1))
        await world.read_to_the_end(service)
        await pass_time(world, service, clock, 14 * MINUTE)
        assert world.rows("orders") == []
        await pass_time(world, service, clock, MINUTE)
        await eventually(lambda: world.rows("orders") == [("o1", 1)])
        await pass_time(world, service, clock, 60 * MINUTE)
    assert world.rows("orders") == [("o1", 1)], "once"
    ((about, _),) = await world.events("expiries")
    assert about["correlationid"] == "s1"
    assert world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)]


@pytest.mark.parametrize("stops", [Sent, Rejected])
@pytest.mark.parametrize("first", [False, True])
async def test_what_stops_it_does_so_before_and_after_it_is_set(world, clock, stops, first):
    service = orders()
    events = [Ordered(id="o1"), stops(id="o1")]
    async with world.running(service):
        for event in reversed(events) if first else events:
            await tell(world, "s1", event)
            await world.read_to_the_end(service)
        await tell(world, "s2", Ordered(id="o2"))
        await world.read_to_the_end(service)
        assert len(world.rows("orders", "SELECT 1 FROM choreo_timers")) == 1
        await pass_time(world, service, clock, 16 * MINUTE)
        await eventually(lambda: world.rows("orders") == [("o2", 0)])


async def test_it_is_called_after_a_restart_days_later(world, clock):
    service = orders(within="3d")
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
    clock.turn(5 * 86_400)
    async with world.running(service):
        for _ in range(20):
            clock.turn(0.1)
            await asyncio.sleep(0.005)
        await eventually(lambda: world.rows("orders") == [("o1", 0)])


async def test_what_was_produced_in_time_stops_it_though_the_service_was_away_until_after(world, clock):
    service = orders()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await tell(world, "s2", Ordered(id="o2"))
        await world.read_to_the_end(service)
    clock.turn(10 * MINUTE)
    await tell(world, "s1", *(Sent(id="o1") for _ in range(3)), *(Sent(id=f"other{n}") for n in range(300)))
    clock.turn(60 * MINUTE)
    async with world.running(service):
        for _ in range(50):
            clock.turn(0.1)
            await asyncio.sleep(0.005)
        await world.read_to_the_end(service)
        await eventually(lambda: world.rows("orders") == [("o2", 0)])
    assert world.rows("orders") == [("o2", 0)]


async def test_what_was_produced_too_late_does_not_stop_it(world, clock):
    service = orders()
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
    clock.turn(16 * MINUTE)
    await tell(world, "s1", Sent(id="o1"))
    async with world.running(service):
        for _ in range(20):
            clock.turn(0.1)
            await asyncio.sleep(0.005)
        await eventually(lambda: world.rows("orders") == [("o1", 0)])


async def test_reminders_come_at_their_pace_and_end(world, clock):
    service = orders(within="1h", every="2h", times=3)
    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
        for hours, calls in ((1, 1), (2, 2), (2, 3), (2, 3), (20, 3)):
            await pass_time(world, service, clock, 3600 * hours)
            await eventually(lambda calls=calls: len(world.rows("orders")) == calls)
    events = await world.events("expiries")
    assert len({about["id"] for about, _ in events}) == 3
    assert world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)]


async def test_each_new_event_of_its_own_class_puts_it_off(world, clock):
    service = orders(unless=(Ordered, Sent))
    async with world.running(service):
        for number in range(3):
            await tell(world, "s1", Ordered(id="o1", n=number))
            await world.read_to_the_end(service)
            await pass_time(world, service, clock, 10 * MINUTE)
        assert world.rows("orders") == []
        await pass_time(world, service, clock, 6 * MINUTE)
        await eventually(lambda: world.rows("orders") == [("o1", 2)])
        await pass_time(world, service, clock, 60 * MINUTE)
    assert world.rows("orders") == [("o1", 2)]


async def test_a_call_that_fails_is_tried_again_and_may_become_a_dead_letter(world, clock):
    service, calls = Service("orders", tables=TABLES), []

    @service.deadline(Ordered, within="1m", retry=AT_ONCE)
    async def expire(order: Ordered, ctx: Context) -> None:
        calls.append(order.n)
        if order.n or len(calls) < 2:
            raise ConnectionError
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))

    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
        await pass_time(world, service, clock, 2 * MINUTE)
        await eventually(lambda: world.rows("orders") == [("o1", 0)])
        await tell(world, "s2", Ordered(id="o2", n=1))
        await world.read_to_the_end(service)
        await pass_time(world, service, clock, 2 * MINUTE)
        await eventually(lambda: calls == [0, 0, 1, 1, 1])
        await eventually(lambda: world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)])
    ((about, _),) = await world.letters("orders")
    assert about["choreo.dlq.handler"] == "expire"


async def test_a_call_that_waits_in_the_retry_topic_comes_back_as_a_call(world, clock):
    service, calls = Service("orders", tables=TABLES), []

    @service.deadline(Ordered, within="1m", retry=Retry(delay="10s", in_place="1s"))
    async def expire(order: Ordered, ctx: Context) -> Expired:
        calls.append(ctx.attempt)
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if len(calls) < 2:
            raise ConnectionError
        return Expired(id=order.id)

    async with world.running(service):
        await tell(world, "s1", Ordered(id="o1"))
        await world.read_to_the_end(service)
        await pass_time(world, service, clock, 2 * MINUTE)
        await eventually(lambda: calls == [1])
        await eventually(lambda: world.rows("orders", "SELECT count(*) FROM choreo_timers") == [(0,)])
        for _ in range(20):
            clock.turn(1)
            await asyncio.sleep(0.01)
        await eventually(lambda: calls == [1, 2])
        await world.read_to_the_end(service)
    assert world.rows("orders") == [("o1", 0)]
    assert len(await world.events("expiries")) == 1
