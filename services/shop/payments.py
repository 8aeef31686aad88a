"""Payments: charges what is ordered, and refunds the charge if the order is cancelled. Keeps its customers' accounts."""

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
    balance_cents BIGINT NOT NULL,
    card_limit_cents BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS charges (order_id TEXT NOT NULL, customer_id TEXT NOT NULL, amount_cents BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS refunds (order_id TEXT NOT NULL, customer_id TEXT NOT NULL, amount_cents BIGINT NOT NULL);
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
async def charge(order: OrderPlaced, ctx: Context) -> PaymentCharged | PaymentDeclined:
    """Charge the customer's account."""
    account = await ctx.db.fetch_one(
        "SELECT balance_cents, card_limit_cents FROM accounts WHERE customer_id = $1", (order.customer_id,)
    )
    amount = to_cents(order.total)
    reason = refusal(amount, *account) if account else "no such customer"
    if reason:
        return PaymentDeclined(order_id=order.order_id, reason=reason)
    await ctx.db.execute(
        "UPDATE accounts SET balance_cents = balance_cents - $1 WHERE customer_id = $2", (amount, order.customer_id)
    )
    await ctx.db.execute("INSERT INTO charges VALUES ($1, $2, $3)", (order.order_id, order.customer_id, amount))
    return PaymentCharged(
        order_id=order.order_id, customer_id=order.customer_id, amount=order.total, receipt=ctx.idempotency_key
    )


@payments.compensates(charge, on=(OrderCancelled,))
async def refund(charged: PaymentCharged, cancelled: OrderCancelled, ctx: Context) -> PaymentRefunded:
    """Give back what was charged."""
    order_id, customer_id, amount = charged.order_id, charged.customer_id, to_cents(charged.amount)
    await ctx.db.execute(
        "UPDATE accounts SET balance_cents = balance_cents + $1 WHERE customer_id = $2", (amount, customer_id)
    )
    await ctx.db.execute("INSERT INTO refunds VALUES ($1, $2, $3)", (order_id, customer_id, amount))
    return PaymentRefunded(order_id=order_id, customer_id=customer_id, amount=charged.amount)
