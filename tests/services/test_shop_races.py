"""One order of each outcome, through every order in which its events can reach the services."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from services.shop import inventory, loyalty, notifications, orders, payments, shipping
from services.shop.audit import audit
from services.shop.events import Cause, OrderCancelled, OrderConfirmed
from services.shop.model import Outcome, books_of, outcomes_of
from services.shop.orders_generator import orders as sample
from tests.services.interleavings import Delivery, World, connect, empty_store, endings, handle

REACTING = [orders.orders, payments.payments, inventory.inventory, shipping.shipping]
LEAVES = [notifications.notifications, loyalty.loyalty]
ONE_OF_EACH = {" or ".join(sorted(outcomes_of(order))): order for order in sample(7, 200)}


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


@pytest.mark.parametrize("outcomes", list(ONE_OF_EACH))
@pytest.mark.parametrize("in_topic_order", [True, False])
def test_every_interleaving_gives_the_models_books(outcomes: str, in_topic_order: bool) -> None:
    """Also without any order, as after a dead letter that is redriven late."""
    order = ONE_OF_EACH[outcomes]
    worlds = list(endings(REACTING, order, in_topic_order=in_topic_order))
    assert {has_expired(world) for world in worlds} == {True, False}
    for world in worlds:
        books = books_of([order], {order.order_id} if has_expired(world) else ())
        with opened(world) as stores:
            assert audit(stores, books) == [], [type(event).__name__ for event in world.events]
        assert max(Counter(type(event) for event in world.events).values()) == 1


def test_the_search_reaches_a_cancellation_that_overtakes_the_order() -> None:
    """Otherwise the tests above would say nothing about it."""
    order = ONE_OF_EACH[str(Outcome.UNAVAILABLE)]
    worlds = list(endings(REACTING, order, in_topic_order=False))
    assert {"PaymentCharged" in types(world) for world in worlds} == {True, False}


def test_the_search_reaches_an_order_whose_time_is_up_while_its_parcel_is_handed_over() -> None:
    order = ONE_OF_EACH[str(Outcome.CONFIRMED)]
    expired = [world for world in endings(REACTING, order, in_topic_order=True) if has_expired(world)]
    sent = [world for world in expired if "Shipped" in types(world)]
    assert sent
    assert len(sent) < len(expired)
    undone = {"PaymentRefunded", "StockReleased", "ShipmentCalledBack"}
    assert all(undone <= types(world) for world in sent), "in every direction"
