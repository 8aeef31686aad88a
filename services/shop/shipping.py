"""Shipping: sends an order off once it is paid and its stock is set aside, whichever comes first."""

from __future__ import annotations

from choreo import Context, Service
from services.shop.catalogue import COUNTRIES_SERVED
from services.shop.events import OrderCancelled, PaymentCharged, ShipmentRejected, Shipped, StockReserved

TABLES = """
CREATE TABLE IF NOT EXISTS parcels (
    order_id TEXT PRIMARY KEY,
    is_paid INTEGER NOT NULL DEFAULT 0,
    country TEXT,                             -- known once the stock is set aside
    status TEXT NOT NULL DEFAULT 'waiting'    -- waiting, shipped, rejected, cancelled
);
CREATE TABLE IF NOT EXISTS shipments (order_id TEXT NOT NULL, country TEXT NOT NULL, tracking TEXT NOT NULL);
"""

shipping = Service("shipping", tables=TABLES)


@shipping.on(PaymentCharged, StockReserved)
async def ship(half: PaymentCharged | StockReserved, ctx: Context) -> Shipped | ShipmentRejected | None:
    """Note one half; with both there, hand the parcel to the carrier."""
    await ctx.db.execute("INSERT INTO parcels (order_id) VALUES (?) ON CONFLICT DO NOTHING", (half.order_id,))
    if isinstance(half, PaymentCharged):
        await ctx.db.execute("UPDATE parcels SET is_paid = 1 WHERE order_id = ?", (half.order_id,))
    else:
        await ctx.db.execute("UPDATE parcels SET country = ? WHERE order_id = ?", (half.country, half.order_id))
    ready = await ctx.db.fetch_one(
        "SELECT country FROM parcels WHERE order_id = ? AND is_paid AND country IS NOT NULL AND status = 'waiting'",
        (half.order_id,),
    )
    return await _send_off(half.order_id, ready[0], ctx) if ready else None


async def _send_off(order_id: str, country: str, ctx: Context) -> Shipped | ShipmentRejected:
    is_served = country in COUNTRIES_SERVED
    status = "shipped" if is_served else "rejected"
    await ctx.db.execute("UPDATE parcels SET status = ? WHERE order_id = ?", (status, order_id))
    if not is_served:
        return ShipmentRejected(order_id=order_id, reason=f"no carrier goes to {country}")
    tracking = ctx.idempotency_key
    await ctx.db.execute("INSERT INTO shipments VALUES (?, ?, ?)", (order_id, country, tracking))
    return Shipped(order_id=order_id, country=country, tracking=tracking)


@shipping.on(OrderCancelled)
async def call_off(cancelled: OrderCancelled, ctx: Context) -> None:
    """Wait no longer for the other half, also if the first one has not come yet."""
    await ctx.db.execute("INSERT INTO parcels (order_id) VALUES (?) ON CONFLICT DO NOTHING", (cancelled.order_id,))
    await ctx.db.execute(
        "UPDATE parcels SET status = 'cancelled' WHERE order_id = ? AND status = 'waiting'", (cancelled.order_id,)
    )
