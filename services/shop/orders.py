"""Orders: owns the outcome of every order. Each ends exactly once, confirmed or cancelled, and nobody else decides it.

The table's primary key is the decision: of all that could end an order, the first to write its row does.
"""

from __future__ import annotations

from typing import TypeAlias

from choreo import Context, Service
from services.shop.events import (
    Cause,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    PaymentDeclined,
    ShipmentRejected,
    Shipped,
    StockUnavailable,
)

TABLES = """
CREATE TABLE IF NOT EXISTS outcomes (
    order_id TEXT PRIMARY KEY,
    status TEXT NOT NULL,    -- confirmed, cancelled
    cause TEXT NOT NULL      -- of a cancellation
);
"""

Fatal: TypeAlias = PaymentDeclined | StockUnavailable | ShipmentRejected

CAUSES: dict[type[Fatal], Cause] = {
    PaymentDeclined: Cause.PAYMENT_DECLINED,
    StockUnavailable: Cause.STOCK_UNAVAILABLE,
    ShipmentRejected: Cause.SHIPMENT_REJECTED,
}

TIME_LIMIT = "15m"

orders = Service("orders", tables=TABLES)


@orders.join(OrderPlaced, Shipped, unless=(OrderCancelled,))
async def confirm(order: OrderPlaced, shipped: Shipped, ctx: Context) -> OrderConfirmed | None:
    """Confirm the order, unless its time was up just before."""
    if not await _is_first_to_end(order.order_id, "confirmed", "", ctx):
        return None
    return OrderConfirmed(order_id=order.order_id, customer_id=order.customer_id, total=order.total)


@orders.on(*CAUSES)
async def cancel(failure: Fatal, ctx: Context) -> OrderCancelled | None:
    """Cancel the order at its first failure; a second one changes nothing."""
    return await _cancelled(failure.order_id, CAUSES[type(failure)], failure.reason, ctx)


@orders.deadline(OrderPlaced, within=TIME_LIMIT, unless=(OrderConfirmed, OrderCancelled))
async def expire(order: OrderPlaced, ctx: Context) -> OrderCancelled | None:
    """Cancel an order that somebody has not answered in time, so that its customer does not wait for ever."""
    return await _cancelled(order.order_id, Cause.EXPIRED, f"not completed within {TIME_LIMIT}", ctx)


async def _cancelled(order_id: str, cause: Cause, reason: str, ctx: Context) -> OrderCancelled | None:
    if not await _is_first_to_end(order_id, "cancelled", cause, ctx):
        return None
    return OrderCancelled(order_id=order_id, cause=cause, reason=reason)


async def _is_first_to_end(order_id: str, status: str, cause: str, ctx: Context) -> bool:
    written = await ctx.db.execute(
        "INSERT INTO outcomes VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", (order_id, status, cause)
    )
    return written == 1
