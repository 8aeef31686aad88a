"""The shop over virtual time: what is late, down for good, or dies at the worst moment. Afterwards the books are right."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

import pytest

from choreo.testing import World, running
from services.shop import inventory, orders, payments, services, shipping
from services.shop.audit import audit
from services.shop.events import (
    Cause,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    Shipped,
    StockReserved,
)
from services.shop.loyalty import PointsEarned
from services.shop.model import Outcome, books_of, outcomes_of
from services.shop.orders_generator import orders as sample
from tests.services.conftest import SCHEMAS

SAMPLE = sample(7, 200)
GOOD = next(order for order in SAMPLE if outcomes_of(order) == {Outcome.CONFIRMED})
ONE_OF_EACH = list({outcomes_of(order): order for order in SAMPLE}.values())
EVERYTHING_UNDONE = {"PaymentRefunded", "StockReleased", "ShipmentCalledBack"}


async def findings(world: World, placed: Collection[OrderPlaced], expired: Collection[str] = ()) -> list[str]:
    """What the audit says of this world's stores."""
    stores = {service.name: sqlite3.connect(":memory:", isolation_level=None) for service in services}
    for service in services:
        store = stores[service.name]
        store.executescript(service.tables)
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            store.execute(f"DELETE FROM {table}")
            for row in await world.fetch(service, f"SELECT * FROM {table}"):
                store.execute(f"INSERT INTO {table} VALUES ({', '.join('?' for _ in row)})", row)
    found = audit(stores, books_of(placed, expired))
    for store in stores.values():
        store.close()
    return found


def causes(world: World) -> list[Cause]:
    return [event.cause for event in world.emitted(OrderCancelled)]


async def test_one_order_of_each_kind_ends_as_the_model_says() -> None:
    async with running(services, schemas=SCHEMAS) as world:
        for order in ONE_OF_EACH:
            saga = await world.publish(order)
            await world.settle()
            assert saga.outcome == ("completed" if outcomes_of(order) == {Outcome.CONFIRMED} else "failed")
        assert await findings(world, ONE_OF_EACH) == []
        await world.advance("1d")
        assert Cause.EXPIRED not in causes(world), "what has ended cannot expire"


@pytest.mark.parametrize(
    "down", [payments.payments, inventory.inventory, shipping.shipping], ids=lambda service: service.name
)
async def test_an_order_does_not_wait_for_ever_for_a_service_that_is_down(down) -> None:
    waits_for = StockReserved if down is shipping.shipping else OrderPlaced
    async with running(services, schemas=SCHEMAS) as world:
        world.hold(waits_for, to=down)
        saga = await world.publish(GOOD)
        await world.advance("14m")
        assert saga.outcome is None
        await world.advance("61s")
        assert (saga.outcome, causes(world)) == ("failed", [Cause.EXPIRED])
        assert await findings(world, [GOOD], [GOOD.order_id]) == [], "although one is still down"
        await world.release(waits_for)
        await world.advance("1h")
        assert saga.outcome == "failed"
        assert await findings(world, [GOOD], [GOOD.order_id]) == [], "what it did late is undone, if it was done"


async def test_time_that_is_up_while_the_parcel_is_under_way_calls_it_back() -> None:
    async with running(services, schemas=SCHEMAS) as world:
        world.hold(Shipped, to=orders.orders)
        saga = await world.publish(GOOD)
        await world.advance("16m")
        assert causes(world) == [Cause.EXPIRED]
        assert set(saga.types) >= EVERYTHING_UNDONE
        await world.release(Shipped)
        await world.advance("1h")
        assert (world.emitted(OrderConfirmed), world.emitted(PointsEarned)) == ([], [])
        assert await findings(world, [GOOD], [GOOD.order_id]) == []


async def test_a_parcel_handed_over_in_time_is_confirmed_and_the_clock_stops() -> None:
    async with running(services, schemas=SCHEMAS) as world:
        world.hold(Shipped, to=orders.orders)
        saga = await world.publish(GOOD)
        await world.advance("899s")
        await world.release(Shipped)
        await world.advance("1h")
        assert saga.outcome == "completed"
        assert not EVERYTHING_UNDONE & set(saga.types)
        assert await findings(world, [GOOD]) == []


async def test_an_order_that_is_cancelled_while_its_parcel_is_handed_over_is_not_shipped() -> None:
    """The call of `ship` hangs from before the time is up until long after."""
    async with running(services, schemas=SCHEMAS) as world:
        world.delay(StockReserved, "898s", to=shipping.shipping)
        world.hang(shipping.ship)
        saga = await world.publish(GOOD)
        await world.advance("20m")
        assert (saga.outcome, causes(world)) == ("failed", [Cause.EXPIRED])
        assert "Shipped" not in saga.types
        assert await findings(world, [GOOD], [GOOD.order_id]) == []


@pytest.mark.parametrize("point", ["before handler", "after handler", "before commit", "after commit", "after publish"])
@pytest.mark.parametrize("service", services[:4], ids=lambda service: service.name)
async def test_a_service_may_die_anywhere(service, point) -> None:
    async with running(services, schemas=SCHEMAS) as world:
        world.crash_at(service, point, times=3)
        for order in ONE_OF_EACH:
            await world.publish(order)
        await world.advance("1m")
        assert world.crashes[service.name] == 3
        assert await findings(world, ONE_OF_EACH) == []


async def test_two_of_every_event_change_nothing() -> None:
    async with running(services, schemas=SCHEMAS) as world:
        for event in {event for service in services for event in service.event_classes}:
            world.duplicate(event)
        for order in ONE_OF_EACH:
            await world.publish(order)
        await world.advance("1m")
        assert await findings(world, ONE_OF_EACH) == []


async def test_the_others_do_not_notice_whether_there_is_a_loyalty_programme() -> None:
    async with running([service for service in services if service.name != "loyalty"], schemas=SCHEMAS) as world:
        saga = await world.publish(GOOD)
        await world.settle()
        assert saga.outcome == "completed"
        assert saga.types[-1] == "OrderConfirmed"
