"""Inventory: sets aside what is ordered, all lines or none, and puts it back if the order is cancelled. Keeps the stock."""

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
)

_STOCK = ",\n    ".join(f"('{article.sku}', {article.stock})" for article in ARTICLES)

TABLES = f"""
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, available BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS reservations (order_id TEXT NOT NULL, sku TEXT NOT NULL, quantity BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS releases (order_id TEXT NOT NULL, sku TEXT NOT NULL, quantity BIGINT NOT NULL);
INSERT INTO stock VALUES
    {_STOCK}
ON CONFLICT DO NOTHING;
"""

inventory = Service("inventory", tables=TABLES)


@inventory.on(OrderPlaced)
async def reserve(order: OrderPlaced, ctx: Context) -> StockReserved | StockUnavailable:
    """Set every line aside, or none."""
    missing = [line.sku for line in order.lines if not await _is_available(line, ctx)]
    if missing:
        reason = f"sold out: {', '.join(missing)}"
        return StockUnavailable(order_id=order.order_id, missing=tuple(missing), reason=reason)
    for line in order.lines:
        await ctx.db.execute("UPDATE stock SET available = available - $1 WHERE sku = $2", (line.quantity, line.sku))
        await ctx.db.execute("INSERT INTO reservations VALUES ($1, $2, $3)", (order.order_id, line.sku, line.quantity))
    return StockReserved(order_id=order.order_id, lines=order.lines, country=order.country)


async def _is_available(line: OrderLine, ctx: Context) -> bool:
    row = await ctx.db.fetch_one("SELECT 1 FROM stock WHERE sku = $1 AND available >= $2", (line.sku, line.quantity))
    return row is not None


@inventory.compensates(reserve, on=(OrderCancelled,))
async def release(reserved: StockReserved, cancelled: OrderCancelled, ctx: Context) -> StockReleased:
    """Put back what was set aside."""
    for line in reserved.lines:
        await ctx.db.execute("UPDATE stock SET available = available + $1 WHERE sku = $2", (line.quantity, line.sku))
        await ctx.db.execute("INSERT INTO releases VALUES ($1, $2, $3)", (reserved.order_id, line.sku, line.quantity))
    return StockReleased(order_id=reserved.order_id, lines=reserved.lines)
