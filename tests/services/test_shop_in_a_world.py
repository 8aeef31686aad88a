"""The shop in a world of `choreo.testing`: one order through, all that can become of an order, and the worst day of its life."""

from __future__ import annotations

from collections import Counter

import pytest

from choreo.testing import running
from services.shop import services
from services.shop.events import OrderCancelled, OrderConfirmed, PaymentCharged, PaymentRefunded, StockReserved
from services.shop.model import Outcome, books_of
from services.shop.orders_generator import orders


def an_order(outcome: Outcome, seed: int = 7):
    """The first order of the sample with this outcome."""
    placed = orders(seed, 200)
    outcomes = books_of(placed).outcomes
    return next(order for order in placed if outcomes[order.order_id] == {outcome})


async def balances(world) -> dict[str, int]:
    return dict(await world.fetch("payments", "SELECT customer_id, balance_cents FROM accounts"))


async def test_one_order_is_confirmed():
    order = an_order(Outcome.CONFIRMED)
    async with running(services) as world:
        before = await balances(world)
        saga = await world.publish(order)
        await world.settle()
        assert [paid.amount for paid in world.emitted(PaymentCharged)] == [order.total]
        assert [confirmed.order_id for confirmed in saga.emitted(OrderConfirmed)] == [order.order_id]
        after = await balances(world)
        assert before[order.customer_id] - after[order.customer_id] == order.total * 100


@pytest.mark.parametrize("outcome", [Outcome.DECLINED, Outcome.UNAVAILABLE, Outcome.REJECTED])
async def test_an_order_that_fails_costs_nothing(outcome):
    order = an_order(outcome)
    async with running(services) as world:
        before = await balances(world)
        saga = await world.publish(order)
        await world.settle()
        assert len(saga.emitted(OrderCancelled)) == 1
        assert len(world.emitted(PaymentCharged)) == len(world.emitted(PaymentRefunded))
        assert await balances(world) == before


async def test_nothing_is_doubled_or_lost_by_duplicates_and_crashes_of_everybody():
    placed = orders(7, 20)
    books = books_of(placed)
    async with running(services) as world:
        for event in (PaymentCharged, StockReserved, *{type(order) for order in placed}):
            world.duplicate(event)
        for number, service in enumerate(services):
            world.crash_at(service, ("before commit", "after commit", "after publish")[number % 3])
        for order in placed:
            await world.publish(order)
        await world.settle()
        confirmed = books.confirmed
        assert {event.order_id for event in world.emitted(OrderConfirmed)} == confirmed
        assert {event.order_id for event in world.emitted(OrderCancelled)} == books.outcomes.keys() - confirmed
        assert len(world.emitted(OrderConfirmed)) + len(world.emitted(OrderCancelled)) == len(placed)
        rows = "SELECT order_id, customer_id, amount_cents FROM"
        kept = Counter(await world.fetch("payments", f"{rows} charges"))
        kept.subtract(await world.fetch("payments", f"{rows} refunds"))
        assert +kept == books.kept["charges"]
        assert -kept == {}
        assert sum(world.crashes.values()) == len(services)
