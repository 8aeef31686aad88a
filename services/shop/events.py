"""The shop's contracts: each event, its topic and its key. The services share these and nothing else."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from choreo import Event, Failure

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
"""An amount in euros, exact to the cent."""

Quantity = Annotated[int, Field(gt=0)]


class OrderLine(BaseModel):
    """One article of an order."""

    model_config = ConfigDict(frozen=True)

    sku: str
    quantity: Quantity
    unit_price: Money


class Cause(StrEnum):
    """Why an order is cancelled."""

    PAYMENT_DECLINED = "payment_declined"
    STOCK_UNAVAILABLE = "stock_unavailable"
    SHIPMENT_REJECTED = "shipment_rejected"
    EXPIRED = "expired"


class OrderPlaced(Event, topic="orders", key="order_id"):
    """A customer ordered; it starts the saga."""

    order_id: str
    customer_id: str
    lines: tuple[OrderLine, ...]
    total: Money
    country: str


class OrderConfirmed(Event, topic="orders", key="order_id", ends="completed"):
    """The order is paid and under way: the good end."""

    order_id: str
    customer_id: str
    total: Money


class OrderCancelled(Failure, topic="orders", key="order_id", ends="failed"):
    """The order will not be delivered: the other end. Whoever did something for it undoes that now."""

    order_id: str
    cause: Cause
    reason: str


class PaymentCharged(Event, topic="payments", key="order_id"):
    """The customer's account was charged with the order's total."""

    order_id: str
    customer_id: str
    amount: Money
    receipt: str


class PaymentDeclined(Failure, topic="payments", key="order_id"):
    """The customer's card does not pay for this order; nothing was charged."""

    order_id: str
    reason: str


class PaymentRefunded(Event, topic="payments", key="order_id"):
    """What a cancelled order had been charged is back on the customer's account."""

    order_id: str
    customer_id: str
    amount: Money


class StockReserved(Event, topic="inventory", key="order_id"):
    """Every line of the order is set aside, with the packing slip's destination."""

    order_id: str
    lines: tuple[OrderLine, ...]
    country: str


class StockUnavailable(Failure, topic="inventory", key="order_id"):
    """At least one line cannot be served; nothing was set aside."""

    order_id: str
    missing: tuple[str, ...]
    reason: str


class StockReleased(Event, topic="inventory", key="order_id"):
    """What had been set aside for a cancelled order is for sale again."""

    order_id: str
    lines: tuple[OrderLine, ...]


class Shipped(Event, topic="shipping", key="order_id"):
    """The parcel is with the carrier."""

    order_id: str
    country: str
    tracking: str


class ShipmentCalledBack(Event, topic="shipping", key="order_id"):
    """The parcel of a cancelled order comes back from the carrier."""

    order_id: str
    country: str
    tracking: str


class ShipmentRejected(Failure, topic="shipping", key="order_id"):
    """No carrier takes this parcel."""

    order_id: str
    reason: str


def to_cents(amount: Decimal) -> int:
    """An amount as whole cents, which is how the services keep money in their tables."""
    return int(amount.scaleb(2))


def from_cents(cents: int) -> Decimal:
    """Whole cents as an amount in euros."""
    return Decimal(cents).scaleb(-2)
