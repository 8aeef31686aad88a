"""Notifications: tells the customer about everything. A leaf: nobody waits for it, so its failures hurt no order.

The table is the queue that a mailer empties. To send from the handler itself instead, call the mail provider
before the insert, with `ctx.idempotency_key`, so that a handler run again does not send twice.
"""

from __future__ import annotations

from typing import TypeAlias

from choreo import Context, Retry, Service
from services.shop.events import (
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    PaymentCharged,
    PaymentDeclined,
    PaymentRefunded,
    ShipmentCalledBack,
    ShipmentRejected,
    Shipped,
    StockReleased,
    StockReserved,
    StockUnavailable,
)

TABLES = """
CREATE TABLE IF NOT EXISTS notifications_sent (
    event_id TEXT NOT NULL,
    order_id TEXT NOT NULL,
    type_name TEXT NOT NULL,
    message TEXT NOT NULL
);
"""

Told: TypeAlias = (
    OrderPlaced
    | OrderConfirmed
    | OrderCancelled
    | PaymentCharged
    | PaymentDeclined
    | PaymentRefunded
    | StockReserved
    | StockUnavailable
    | StockReleased
    | Shipped
    | ShipmentCalledBack
    | ShipmentRejected
)

notifications = Service("notifications", tables=TABLES)


MESSAGES: dict[type[Told], str] = {
    OrderPlaced: "Your order {0.order_id} over {0.total} € has arrived. Thank you!",
    OrderConfirmed: "Your order {0.order_id} is complete.",
    OrderCancelled: "Your order {0.order_id} is cancelled: {0.reason}.",
    PaymentCharged: "We charged {0.amount} € for your order {0.order_id}.",
    PaymentDeclined: "Your card does not pay for your order {0.order_id}: {0.reason}.",
    PaymentRefunded: "The {0.amount} € for your order {0.order_id} are back on your account.",
    StockReserved: "Your order {0.order_id} is being packed.",
    StockUnavailable: "Something in your order {0.order_id} is missing: {0.reason}.",
    StockReleased: "Nothing is set aside for your order {0.order_id} any more.",
    Shipped: "Your order {0.order_id} is on its way to {0.country}, tracking number {0.tracking}.",
    ShipmentCalledBack: "Please do not accept parcel {0.tracking} of your order {0.order_id}: it is on its way back to us.",
    ShipmentRejected: "Your order {0.order_id} cannot be delivered: {0.reason}.",
}


@notifications.on(*MESSAGES, retry=Retry(attempts=3, transient=(OSError,)))
async def notify(event: Told, ctx: Context) -> None:
    """Queue the message for the customer."""
    await ctx.db.execute(
        "INSERT INTO notifications_sent VALUES ($1, $2, $3, $4)",
        (ctx.event_id, event.order_id, event.contract.type_name, message_for(event)),
    )


def message_for(event: Told) -> str:
    """What the customer reads."""
    return MESSAGES[type(event)].format(event)
