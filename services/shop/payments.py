"""Payments: charges what is ordered, refunds what is cancelled. Keeps its customers' accounts."""

from __future__ import annotations

from choreo import Context, Service
from services.shop.catalogue import CUSTOMERS
from services.shop.events import (
    OrderCancelled,
    OrderPlaced,
    PaymentCharged,
    PaymentDeclined,
    PaymentRefunded,
    from_cents,
    to_cents,
)

_ACCOUNTS = ",\n    ".join(f"('{c.customer_id}', {to_cents(c.balance)}, {to_cents(c.card_limit)})" for c in CUSTOMERS)

TABLES = f"""
CREATE TABLE IF NOT EXISTS accounts (
    customer_id TEXT PRIMARY KEY,
    balance_cents INTEGER NOT NULL,
    card_limit_cents INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS charges (order_id TEXT NOT NULL, customer_id TEXT NOT NULL, amount_cents INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS charges_of_order ON charges (order_id);
CREATE TABLE IF NOT EXISTS refunds (order_id TEXT NOT NULL, customer_id TEXT NOT NULL, amount_cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cancelled_orders (order_id TEXT PRIMARY KEY);
INSERT INTO accounts VALUES
    {_ACCOUNTS}
ON CONFLICT DO NOTHING;
"""

payments = Service("payments", tables=TABLES)


def refusal(amount_cents: int, balance_cents: int, card_limit_cents: int) -> str | None:
    """Why a card does not pay this amount; None if it does."""
    if not card_limit_cents:
        return "the card is blocked"
    if amount_cents > card_limit_cents:
        return f"more than the card's limit of {from_cents(card_limit_cents)}"
    if amount_cents > balance_cents:
        return "the account has not enough money"
    return None


@payments.on(OrderPlaced)
async def charge(order: OrderPlaced, ctx: Context) -> PaymentCharged | PaymentDeclined | None:
    """Charge the customer's account, unless the order is cancelled already."""
    if await ctx.db.fetch_one("SELECT 1 FROM cancelled_orders WHERE order_id = ?", (order.order_id,)):
        return None
    account = await ctx.db.fetch_one(
        "SELECT balance_cents, card_limit_cents FROM accounts WHERE customer_id = ?", (order.customer_id,)
    )
    amount = to_cents(order.total)
    reason = refusal(amount, *account) if account else "no such customer"
    if reason:
        return PaymentDeclined(order_id=order.order_id, reason=reason)
    await ctx.db.execute(
        "UPDATE accounts SET balance_cents = balance_cents - ? WHERE customer_id = ?", (amount, order.customer_id)
    )
    await ctx.db.execute("INSERT INTO charges VALUES (?, ?, ?)", (order.order_id, order.customer_id, amount))
    return PaymentCharged(
        order_id=order.order_id, customer_id=order.customer_id, amount=order.total, receipt=ctx.idempotency_key
    )


@payments.on(OrderCancelled)
async def refund(cancelled: OrderCancelled, ctx: Context) -> PaymentRefunded | None:
    """Give back what was charged; if nothing was yet, remember that nothing may be."""
    await ctx.db.execute("INSERT INTO cancelled_orders VALUES (?) ON CONFLICT DO NOTHING", (cancelled.order_id,))
    charged = await ctx.db.fetch_one(
        "SELECT customer_id, amount_cents FROM charges WHERE order_id = ?", (cancelled.order_id,)
    )
    if charged is None:
        return None
    customer_id, amount = charged
    await ctx.db.execute(
        "UPDATE accounts SET balance_cents = balance_cents + ? WHERE customer_id = ?", (amount, customer_id)
    )
    await ctx.db.execute("INSERT INTO refunds VALUES (?, ?, ?)", (cancelled.order_id, customer_id, amount))
    return PaymentRefunded(order_id=cancelled.order_id, customer_id=customer_id, amount=from_cents(amount))
