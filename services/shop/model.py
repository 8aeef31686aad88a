"""What must come of a list of orders: the shop as one sequential program, without events.

It shares the sample data with the services, and none of their code, so that it can find them wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from services.shop.catalogue import ARTICLES, COUNTRIES_SERVED, CUSTOMERS, SOLD_OUT, WITHOUT_POINTS
from services.shop.events import OrderPlaced, to_cents

Rows: TypeAlias = "Counter[tuple[str | int, ...]]"
"""How often a row is in a table; the order's id comes first."""


class Outcome(StrEnum):
    """How an order ends."""

    CONFIRMED = "confirmed"
    DECLINED = "payment declined"
    UNAVAILABLE = "stock unavailable"
    REJECTED = "shipment rejected"
    EXPIRED = "expired"


FAILURES: Mapping[Outcome, str] = {
    Outcome.DECLINED: "PaymentDeclined",
    Outcome.UNAVAILABLE: "StockUnavailable",
    Outcome.REJECTED: "ShipmentRejected",
}
"""The event behind a cancellation; an order whose time is up has none."""

TABLES = ("charges", "reservations", "shipments", "points")
"""Those that have one row for each thing done."""

_LIMITS = {customer.customer_id: customer.card_limit for customer in CUSTOMERS}


def outcomes_of(order: OrderPlaced) -> frozenset[Outcome]:
    """How this order may end if everybody answers in time, whatever happens to others.

    Payment and stock are asked at the same time: if both say no, either may be the first.
    """
    refused = {
        Outcome.DECLINED: order.total > _LIMITS[order.customer_id],
        Outcome.UNAVAILABLE: any(line.sku in SOLD_OUT for line in order.lines),
    }
    if any(refused.values()):
        return frozenset(outcome for outcome, is_so in refused.items() if is_so)
    return frozenset({Outcome.CONFIRMED if order.country in COUNTRIES_SERVED else Outcome.REJECTED})


@dataclass(frozen=True)
class Books:
    """What the services' tables must hold in the end; amounts are in cents.

    How far a cancelled order had come is not certain: another branch's failure may keep a step from starting. What is
    certain is that nothing is left of it.

    Attributes:
        outcomes: by order, those it may have.
        balances, points: by customer.
        stock: by article.
        kept: the rows that confirmed orders leave, by table.
        undone: the rows that others may have, each of them undone then.
        failures: (order, type of event), those that there may be.
    """

    outcomes: dict[str, frozenset[Outcome]] = field(default_factory=dict)
    balances: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    stock: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Rows] = field(default_factory=lambda: {name: Counter() for name in TABLES})
    undone: dict[str, Rows] = field(default_factory=lambda: {name: Counter() for name in TABLES})
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def confirmed(self) -> set[str]:
        """The orders that must be confirmed."""
        return {order_id for order_id, outcomes in self.outcomes.items() if outcomes == {Outcome.CONFIRMED}}


def books_of(orders: Iterable[OrderPlaced], expired: Collection[str] = ()) -> Books:
    """The books after these orders, taken one after the other.

    Args:
        expired: those that are not answered in time.
    """
    books = Books(
        balances=Counter({customer.customer_id: to_cents(customer.balance) for customer in CUSTOMERS}),
        stock=Counter({article.sku: article.stock for article in ARTICLES}),
    )
    for order in orders:
        _enter(order, books, has_expired=order.order_id in expired)
    return books


def _enter(order: OrderPlaced, books: Books, *, has_expired: bool) -> None:
    natural = outcomes_of(order)
    outcomes = books.outcomes[order.order_id] = frozenset({Outcome.EXPIRED}) if has_expired else natural
    books.failures.update((order.order_id, FAILURES[outcome]) for outcome in natural if outcome in FAILURES)
    rows = books.kept if outcomes == {Outcome.CONFIRMED} else books.undone
    if Outcome.DECLINED not in natural:
        rows["charges"][order.order_id, order.customer_id, to_cents(order.total)] += 1
    if Outcome.UNAVAILABLE not in natural:
        rows["reservations"].update((order.order_id, line.sku, line.quantity) for line in order.lines)
    if natural == {Outcome.CONFIRMED}:
        rows["shipments"][order.order_id, order.country] += 1
    if outcomes == {Outcome.CONFIRMED}:
        if order.customer_id != WITHOUT_POINTS:
            points = int(order.total) // 10
            rows["points"][order.order_id, order.customer_id, points] += 1
            books.points[order.customer_id] += points
        books.balances[order.customer_id] -= to_cents(order.total)
        books.stock.subtract({line.sku: line.quantity for line in order.lines})
