"""One order of each outcome, through every order in which its events can reach the services."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from services.shop import inventory, loyalty, notifications, orders, payments, shipping
from services.shop.audit import audit
from services.shop.events import Cause, OrderCancelled, OrderConfirmed, OrderPlaced
from services.shop.model import CAUSES, Outcome, books_of, outcome_of
from services.shop.orders_generator import orders as sample
from tests.services.interleavings import Delivery, World, connect, empty_store, endings, handle

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
                if any(type(event) in handler.consumes for handler in leaf.handlers.values()):
                    handle(leaf, {}, Delivery(leaf.name, event), stores[leaf.name])
        yield stores


def end_of(world: World) -> OrderConfirmed | OrderCancelled:
    """How the order ended: once."""
    (end,) = (event for event in world.events if isinstance(event, OrderConfirmed | OrderCancelled))
    return end


def has_expired(world: World) -> bool:
    end = end_of(world)
    return isinstance(end, OrderCancelled) and end.cause is Cause.EXPIRED


def types(world: World) -> set[str]:
    return {type(event).__name__ for event in world.events}


@pytest.mark.parametrize("outcome", list(ONE_OF_EACH))
def test_every_interleaving_that_choreo_allows_gives_the_models_books(outcome: Outcome) -> None:
    order = ONE_OF_EACH[outcome]
    worlds = list(endings(REACTING, order, in_topic_order=True))
    assert {has_expired(world) for world in worlds} == {True, False}
    for world in worlds:
        books = books_of([order], {order.order_id} if has_expired(world) else ())
        with opened(world) as stores:
            assert audit(stores, books) == [], [type(event).__name__ for event in world.events]


@pytest.mark.parametrize("outcome", list(ONE_OF_EACH))
def test_even_with_no_order_at_all_nothing_is_lost_or_done_twice(outcome: Outcome) -> None:
    order = ONE_OF_EACH[outcome]
    worlds = list(endings(REACTING, order, in_topic_order=False))
    assert worlds
    for world in worlds:
        check_nothing_lost(order, outcome, world)


def check_nothing_lost(order: OrderPlaced, outcome: Outcome, world: World) -> None:
    end = end_of(world)
    if isinstance(end, OrderConfirmed):
        assert outcome is Outcome.CONFIRMED
    else:
        assert end.cause in (*CAUSES[outcome], Cause.EXPIRED)
    is_confirmed = isinstance(end, OrderConfirmed)
    with opened(world) as stores:
        expected = books_of([order], () if is_confirmed else {order.order_id})
        assert dict(stores["payments"].execute("SELECT customer_id, balance_cents FROM accounts")) == expected.balances
        assert dict(stores["inventory"].execute("SELECT sku, available FROM stock")) == expected.stock
        for service, done, undone in DONE_AND_UNDONE:
            did = stores[service].execute(f"SELECT * FROM {done}").fetchall()
            undid = stores[service].execute(f"SELECT * FROM {undone}").fetchall()
            assert len(did) == len(set(did)), "nothing is done twice"
            assert did if is_confirmed else sorted(did) == sorted(undid)
            assert not (is_confirmed and undid)
    assert max(Counter(type(event) for event in world.events).values()) == 1


DONE_AND_UNDONE = [
    ("payments", "charges", "refunds"),
    ("inventory", "reservations", "releases"),
    ("shipping", "shipments", "recalls"),
]


def test_the_search_reaches_a_cancellation_that_overtakes_the_order() -> None:
    """Otherwise the tests above would say nothing about it."""
    order = ONE_OF_EACH[Outcome.UNAVAILABLE]
    worlds = list(endings(REACTING, order, in_topic_order=False))
    assert {"PaymentCharged" in types(world) for world in worlds} == {True, False}


def test_the_search_reaches_an_order_whose_time_is_up_while_its_parcel_is_handed_over() -> None:
    order = ONE_OF_EACH[Outcome.CONFIRMED]
    expired = [world for world in endings(REACTING, order, in_topic_order=True) if has_expired(world)]
    sent = [world for world in expired if "Shipped" in types(world)]
    assert sent
    assert len(sent) < len(expired)
    undone = {"PaymentRefunded", "StockReleased", "ShipmentCalledBack"}
    assert all(undone <= types(world) for world in sent), "in every direction"
