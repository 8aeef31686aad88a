"""Shipping: sends an order off once it is paid and its stock is set aside, and calls the parcel back if it is cancelled."""

from __future__ import annotations

from choreo import Context, Service
from services.shop.catalogue import COUNTRIES_SERVED
from services.shop.events import (
    OrderCancelled,
    PaymentCharged,
    ShipmentCalledBack,
    ShipmentRejected,
    Shipped,
    StockReserved,
)

TABLES = """
CREATE TABLE IF NOT EXISTS shipments (order_id TEXT NOT NULL, country TEXT NOT NULL, tracking TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS recalls (order_id TEXT NOT NULL, country TEXT NOT NULL, tracking TEXT NOT NULL);
"""

shipping = Service("shipping", tables=TABLES)


@shipping.join(PaymentCharged, StockReserved, unless=(OrderCancelled,))
async def ship(paid: PaymentCharged, reserved: StockReserved, ctx: Context) -> Shipped | ShipmentRejected:
    """Hand the parcel to the carrier."""
    order_id, country, tracking = paid.order_id, reserved.country, ctx.idempotency_key
    if country not in COUNTRIES_SERVED:
        return ShipmentRejected(order_id=order_id, reason=f"no carrier goes to {country}")
    await ctx.db.execute("INSERT INTO shipments VALUES ($1, $2, $3)", (order_id, country, tracking))
    return Shipped(order_id=order_id, country=country, tracking=tracking)


@shipping.compensates(ship, on=(OrderCancelled,))
async def call_back(shipped: Shipped, cancelled: OrderCancelled, ctx: Context) -> ShipmentCalledBack:
    """Have the carrier bring the parcel back: the order's time was up while it was handed over."""
    parcel = (shipped.order_id, shipped.country, shipped.tracking)
    await ctx.db.execute("INSERT INTO recalls VALUES ($1, $2, $3)", parcel)
    return ShipmentCalledBack(order_id=shipped.order_id, country=shipped.country, tracking=shipped.tracking)
