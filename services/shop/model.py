"""What must come of a list of orders: the shop as one sequential program, without events.

It shares the sample data with the services, and none of their code, so that it can find them wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.shop.catalogue import ARTICLES, COUNTRIES_SERVED, CUSTOMERS, SOLD_OUT
from services.shop.events import OrderPlaced, to_cents


class Outcome(StrEnum):
    """How an order ends. Payment and stock are asked at the same time, so that both can say no."""

    CONFIRMED = "confirmed"
    DECLINED = "payment declined"
    UNAVAILABLE = "stock unavailable"
    DECLINED_AND_UNAVAILABLE = "payment declined and stock unavailable"
    REJECTED = "shipment rejected"
    EXPIRED = "expired"


CAUSES: Mapping[Outcome, tuple[str, ...]] = {
    Outcome.CONFIRMED: (),
    Outcome.DECLINED: ("payment_declined",),
    Outcome.UNAVAILABLE: ("stock_unavailable",),
    Outcome.DECLINED_AND_UNAVAILABLE: ("payment_declined", "stock_unavailable"),
    Outcome.REJECTED: ("shipment_rejected",),
}
"""The failures behind each outcome that an order has by itself."""

EVENTS: Mapping[Outcome, tuple[str, ...]] = {
    Outcome.CONFIRMED: ("OrderPlaced", "PaymentCharged", "StockReserved", "Shipped", "OrderConfirmed"),
    Outcome.DECLINED: ("OrderPlaced", "PaymentDeclined", "StockReserved", "OrderCancelled", "StockReleased"),
    Outcome.UNAVAILABLE: ("OrderPlaced", "PaymentCharged", "StockUnavailable", "OrderCancelled", "PaymentRefunded"),
    Outcome.DECLINED_AND_UNAVAILABLE: ("OrderPlaced", "PaymentDeclined", "StockUnavailable", "OrderCancelled"),
    Outcome.REJECTED: (
        "OrderPlaced",
        "PaymentCharged",
        "StockReserved",
        "ShipmentRejected",
        "OrderCancelled",
        "PaymentRefunded",
        "StockReleased",
    ),
}
"""Every event of such an order, each once. An order confirmed also earns points, which only `loyalty` knows."""

_LIMITS = {customer.customer_id: customer.card_limit for customer in CUSTOMERS}


def outcome_of(order: OrderPlaced) -> Outcome:
    """How this order ends if everybody answers in time, whatever happens to others."""
    is_declined = order.total > _LIMITS[order.customer_id]
    is_unavailable = any(line.sku in SOLD_OUT for line in order.lines)
    if is_declined and is_unavailable:
        return Outcome.DECLINED_AND_UNAVAILABLE
    if is_declined:
        return Outcome.DECLINED
    if is_unavailable:
        return Outcome.UNAVAILABLE
    return Outcome.CONFIRMED if order.country in COUNTRIES_SERVED else Outcome.REJECTED


@dataclass(frozen=True)
class Books:
    """What the services' tables must hold in the end; amounts are in cents.

    What an expired order has in the tables, depends on how far it had come; only that nothing is left of it is certain.
    So the tables by order leave these out.

    Attributes:
        outcomes: by order.
        failures: (order, cause).
        balances: by customer.
        charges, refunds: (order, customer, amount).
        stock: by article.
        reservations, releases: (order, article, quantity).
        shipments, recalls: (order, country). A parcel is called back of an expired order only.
        notifications: (order, type of event).
        points: (order, customer, points).
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    balances: Counter[str] = field(default_factory=Counter)
    charges: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    refunds: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    stock: Counter[str] = field(default_factory=Counter)
    reservations: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    releases: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    shipments: Counter[tuple[str, str]] = field(default_factory=Counter)
    recalls: Counter[tuple[str, str]] = field(default_factory=Counter)
    notifications: Counter[tuple[str, str]] = field(default_factory=Counter)
    points: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def counts(self) -> Counter[Outcome]:
        """How many orders end in which way."""
        return Counter(self.outcomes.values())

    def events(self) -> int:
        """How many events these orders make in all."""
        return self.notifications.total() + self.points.total()


def books_of(orders: Iterable[OrderPlaced], expired: Collection[str] = ()) -> Books:
    """The books after these orders, taken one after the other.

    Args:
        expired: those that were not answered in time.
    """
    books = Books(
        balances=Counter({customer.customer_id: to_cents(customer.balance) for customer in CUSTOMERS}),
        stock=Counter({article.sku: article.stock for article in ARTICLES}),
    )
    for order in orders:
        if order.order_id in expired:
            books.outcomes[order.order_id] = Outcome.EXPIRED
        else:
            _enter(order, outcome_of(order), books)
    return books


def _enter(order: OrderPlaced, outcome: Outcome, books: Books) -> None:
    events = EVENTS[outcome]
    books.outcomes[order.order_id] = outcome
    books.failures.update((order.order_id, cause) for cause in CAUSES[outcome])
    books.notifications.update((order.order_id, event) for event in events)
    payment = (order.order_id, order.customer_id, to_cents(order.total))
    lines = [(order.order_id, line.sku, line.quantity) for line in order.lines]
    if "PaymentCharged" in events:
        books.charges[payment] += 1
        books.balances[order.customer_id] -= to_cents(order.total)
    if "PaymentRefunded" in events:
        books.refunds[payment] += 1
        books.balances[order.customer_id] += to_cents(order.total)
    if "StockReserved" in events:
        books.reservations.update(lines)
        books.stock.subtract({line.sku: line.quantity for line in order.lines})
    if "StockReleased" in events:
        books.releases.update(lines)
        books.stock.update({line.sku: line.quantity for line in order.lines})
    if outcome is Outcome.CONFIRMED:
        books.shipments[order.order_id, order.country] += 1
        books.points[order.order_id, order.customer_id, int(order.total) // 10] += 1
