"""Inventory: sets aside what is ordered, all lines or none, and puts back what is cancelled. Keeps the stock."""

from __future__ import annotations

from choreo import Context, Service
from services.shop.catalogue import ARTICLES
from services.shop.events import (
    OrderCancelled,
    OrderLine,
    OrderPlaced,
    StockReleased,
    StockReserved,
    StockUnavailable,
    from_cents,
    to_cents,
)

_STOCK = ",\n    ".join(f"('{article.sku}', {article.stock})" for article in ARTICLES)

TABLES = f"""
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, available INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reservations (
    order_id TEXT NOT NULL,
    sku TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    unit_price_cents INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS reservations_of_order ON reservations (order_id);
CREATE TABLE IF NOT EXISTS releases (order_id TEXT NOT NULL, sku TEXT NOT NULL, quantity INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cancelled_orders (order_id TEXT PRIMARY KEY);
INSERT INTO stock VALUES
    {_STOCK}
ON CONFLICT DO NOTHING;
"""

inventory = Service("inventory", tables=TABLES)


@inventory.on(OrderPlaced)
async def reserve(order: OrderPlaced, ctx: Context) -> StockReserved | StockUnavailable | None:
    """Set every line aside or none, unless the order is cancelled already."""
    if await ctx.db.fetch_one("SELECT 1 FROM cancelled_orders WHERE order_id = ?", (order.order_id,)):
        return None
    missing = [line.sku for line in order.lines if not await _is_available(line, ctx)]
    if missing:
        reason = f"sold out: {', '.join(missing)}"
        return StockUnavailable(order_id=order.order_id, missing=tuple(missing), reason=reason)
    for line in order.lines:
        await ctx.db.execute("UPDATE stock SET available = available - ? WHERE sku = ?", (line.quantity, line.sku))
        await ctx.db.execute(
            "INSERT INTO reservations VALUES (?, ?, ?, ?)",
            (order.order_id, line.sku, line.quantity, to_cents(line.unit_price)),
        )
    return StockReserved(order_id=order.order_id, lines=order.lines, country=order.country)


async def _is_available(line: OrderLine, ctx: Context) -> bool:
    row = await ctx.db.fetch_one("SELECT 1 FROM stock WHERE sku = ? AND available >= ?", (line.sku, line.quantity))
    return row is not None


@inventory.on(OrderCancelled)
async def release(cancelled: OrderCancelled, ctx: Context) -> StockReleased | None:
    """Put back what was set aside; if nothing was yet, remember that nothing may be."""
    await ctx.db.execute("INSERT INTO cancelled_orders VALUES (?) ON CONFLICT DO NOTHING", (cancelled.order_id,))
    reserved = await ctx.db.fetch_all(
        "SELECT sku, quantity, unit_price_cents FROM reservations WHERE order_id = ?", (cancelled.order_id,)
    )
    if not reserved:
        return None
    for sku, quantity, _ in reserved:
        await ctx.db.execute("UPDATE stock SET available = available + ? WHERE sku = ?", (quantity, sku))
        await ctx.db.execute("INSERT INTO releases VALUES (?, ?, ?)", (cancelled.order_id, sku, quantity))
    lines = tuple(OrderLine(sku=sku, quantity=n, unit_price=from_cents(cents)) for sku, n, cents in reserved)
    return StockReleased(order_id=cancelled.order_id, lines=lines)
