"""Loyalty: points for confirmed orders. Added to the shop last, and nothing else was touched for it.

It reads what `orders` publishes anyway, and its own event lives here, because no other service needs to know it.
"""

from __future__ import annotations

from choreo import Context, Event, Retry, Service
from services.shop.catalogue import WITHOUT_POINTS
from services.shop.events import OrderConfirmed

TABLES = """
CREATE TABLE IF NOT EXISTS points (order_id TEXT NOT NULL, customer_id TEXT NOT NULL, points BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS balances (customer_id TEXT PRIMARY KEY, points BIGINT NOT NULL);
"""

EUROS_PER_POINT = 10

loyalty = Service("loyalty", tables=TABLES)


class PointsEarned(Event, topic="loyalty", key="customer_id"):
    """A confirmed order earned its customer points."""

    customer_id: str
    order_id: str
    points: int


class AccountClosedError(Exception):
    """A customer wants no points any more: no second attempt helps, somebody has to decide."""


@loyalty.on(OrderConfirmed, retry=Retry(business=(AccountClosedError,)))
async def award(order: OrderConfirmed, ctx: Context) -> PointsEarned:
    """One point for each full ten euros."""
    if order.customer_id == WITHOUT_POINTS:
        raise AccountClosedError(f"customer {order.customer_id} has closed the points account")
    points = int(order.total // EUROS_PER_POINT)
    await ctx.db.execute("INSERT INTO points VALUES ($1, $2, $3)", (order.order_id, order.customer_id, points))
    await ctx.db.execute(
        "INSERT INTO balances VALUES ($1, $2)"
        " ON CONFLICT (customer_id) DO UPDATE SET points = balances.points + excluded.points",
        (order.customer_id, points),
    )
    return PointsEarned(customer_id=order.customer_id, order_id=order.order_id, points=points)
