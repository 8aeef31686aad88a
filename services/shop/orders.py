"""Orders: knows every order's state and ends each exactly once, confirmed or cancelled.

An outcome may arrive before the order itself, because they come by different topics: it is noted,
and the order ends when both are known.
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
    from_cents,
    to_cents,
)

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    total_cents INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'open'    -- open, confirmed, cancelled
);
CREATE INDEX IF NOT EXISTS orders_by_status ON orders (status);
CREATE TABLE IF NOT EXISTS shipped_orders (order_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS shipped_by_order ON shipped_orders (order_id);
CREATE TABLE IF NOT EXISTS failures (order_id TEXT NOT NULL, cause TEXT NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS failures_by_order ON failures (order_id);
"""

Fatal: TypeAlias = PaymentDeclined | StockUnavailable | ShipmentRejected

CAUSES: dict[type[Fatal], Cause] = {
    PaymentDeclined: Cause.PAYMENT_DECLINED,
    StockUnavailable: Cause.STOCK_UNAVAILABLE,
    ShipmentRejected: Cause.SHIPMENT_REJECTED,
}

orders = Service("orders", tables=TABLES)


@orders.on(OrderPlaced)
async def open_order(order: OrderPlaced, ctx: Context) -> OrderConfirmed | OrderCancelled | None:
    """Open the order; end it at once if its outcome was quicker."""
    await ctx.db.execute(
        "INSERT INTO orders (order_id, customer_id, total_cents) VALUES (?, ?, ?)",
        (order.order_id, order.customer_id, to_cents(order.total)),
    )
    if await ctx.db.fetch_one("SELECT 1 FROM shipped_orders WHERE order_id = ?", (order.order_id,)):
        return await _confirm_if_open(order.order_id, ctx)
    failure = await ctx.db.fetch_one("SELECT cause, reason FROM failures WHERE order_id = ?", (order.order_id,))
    return await _cancel_if_open(order.order_id, Cause(failure[0]), failure[1], ctx) if failure else None


@orders.on(Shipped)
async def confirm(shipped: Shipped, ctx: Context) -> OrderConfirmed | None:
    """Confirm the order."""
    await ctx.db.execute("INSERT INTO shipped_orders VALUES (?)", (shipped.order_id,))
    return await _confirm_if_open(shipped.order_id, ctx)


@orders.on(*CAUSES)
async def cancel(failure: Fatal, ctx: Context) -> OrderCancelled | None:
    """Cancel the order at its first failure; a second one is noted."""
    cause = CAUSES[type(failure)]
    await ctx.db.execute("INSERT INTO failures VALUES (?, ?, ?)", (failure.order_id, cause, failure.reason))
    return await _cancel_if_open(failure.order_id, cause, failure.reason, ctx)


async def _confirm_if_open(order_id: str, ctx: Context) -> OrderConfirmed | None:
    if not await _end(order_id, "confirmed", ctx):
        return None
    customer_id, total = await _customer_and_total(order_id, ctx)
    return OrderConfirmed(order_id=order_id, customer_id=customer_id, total=from_cents(total))


async def _cancel_if_open(order_id: str, cause: Cause, reason: str, ctx: Context) -> OrderCancelled | None:
    if not await _end(order_id, "cancelled", ctx):
        return None
    customer_id, _ = await _customer_and_total(order_id, ctx)
    return OrderCancelled(order_id=order_id, customer_id=customer_id, cause=cause, reason=reason)


async def _end(order_id: str, status: str, ctx: Context) -> bool:
    """Whether the order was open and is ended now; not if it has not been placed yet or has ended before."""
    changed = await ctx.db.execute(
        "UPDATE orders SET status = ? WHERE order_id = ? AND status = 'open'", (status, order_id)
    )
    return changed == 1


async def _customer_and_total(order_id: str, ctx: Context) -> tuple[str, int]:
    row = await ctx.db.fetch_one("SELECT customer_id, total_cents FROM orders WHERE order_id = ?", (order_id,))
    if row is None:
        raise LookupError(f"order {order_id} has no row, though it was just ended")
    return row[0], row[1]
