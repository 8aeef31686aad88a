"""One order of each outcome, through every order in which its events can reach the services."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from services.shop import inventory, loyalty, notifications, orders, payments, shipping
from services.shop.audit import audit
from services.shop.events import OrderCancelled, OrderConfirmed, OrderPlaced, to_cents
from services.shop.model import CAUSES, Outcome, books_of, outcome_of
from services.shop.orders_generator import orders as sample
from tests.services.interleavings import World, connect, empty_store, endings, handle

REACTING = [orders.orders, payments.payments, inventory.inventory, shipping.shipping]
LEAVES = [notifications.notifications, loyalty.loyalty]
ONE_OF_EACH = {outcome_of(order): order for order in sample(7, 200)}


@contextmanager
def opened(world: World) -> Iterator[dict[str, sqlite3.Connection]]:
    """All six stores, the leaves having handled everything that happened."""
    with ExitStack() as stack:
        stores = {
            service.name: stack.enter_context(closing(connect(image)))
            for service, image in zip(REACTING, world.stores, strict=True)
        }
        for leaf in LEAVES:
            stores[leaf.name] = stack.enter_context(closing(connect(empty_store(leaf))))
            for event in world.events:
                handle(leaf, event, stores[leaf.name])
        yield stores


def ends(world: World) -> list[OrderConfirmed | OrderCancelled]:
    return [event for event in world.events if isinstance(event, OrderConfirmed | OrderCancelled)]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_interleaving_that_choreo_allows_gives_the_models_books(outcome: Outcome) -> None:
    order = ONE_OF_EACH[outcome]
    worlds = list(endings(REACTING, order, in_topic_order=True))
    assert worlds
    for world in worlds:
        with opened(world) as stores:
            assert audit(stores, books_of([order])) == [], [type(event).__name__ for event in world.events]
        assert len(ends(world)) == 1


@pytest.mark.parametrize("outcome", list(Outcome))
def test_even_with_no_order_at_all_nothing_is_lost_or_done_twice(outcome: Outcome) -> None:
    order = ONE_OF_EACH[outcome]
    worlds = list(endings(REACTING, order, in_topic_order=False))
    assert worlds
    for world in worlds:
        check_nothing_lost(order, outcome, world)


def check_nothing_lost(order: OrderPlaced, outcome: Outcome, world: World) -> None:
    (end,) = ends(world)
    is_confirmed = outcome is Outcome.CONFIRMED
    assert isinstance(end, OrderConfirmed) == is_confirmed
    assert is_confirmed or end.cause in CAUSES[outcome]
    with opened(world) as stores:
        expected = books_of([order])
        assert dict(stores["payments"].execute("SELECT customer_id, balance_cents FROM accounts")) == expected.balances
        assert dict(stores["inventory"].execute("SELECT sku, available FROM stock")) == expected.stock
        charged = stores["payments"].execute("SELECT amount_cents FROM charges").fetchall()
        refunded = stores["payments"].execute("SELECT amount_cents FROM refunds").fetchall()
        assert charged == [(to_cents(order.total),)] if is_confirmed else charged == refunded
        assert refunded == [] if is_confirmed else len(refunded) <= 1
        shipments = stores["shipping"].execute("SELECT order_id FROM shipments").fetchall()
        assert shipments == ([(order.order_id,)] if is_confirmed else [])
        assert stores["shipping"].execute("SELECT * FROM parcels WHERE status = 'waiting'").fetchall() == []
    assert max(Counter(type(event) for event in world.events).values()) == 1


def test_the_search_reaches_a_cancellation_that_overtakes_the_order() -> None:
    """Otherwise the tests above would say nothing about it."""
    order = ONE_OF_EACH[Outcome.UNAVAILABLE]
    worlds = list(endings(REACTING, order, in_topic_order=False))
    assert {"PaymentCharged" in {type(event).__name__ for event in world.events} for world in worlds} == {True, False}
