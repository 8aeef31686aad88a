"""Buying: buys what is approved."""

from __future__ import annotations

from choreo import Context, Service
from services.approval.events import PurchaseApproved, PurchaseFulfilled

TABLES = "CREATE TABLE IF NOT EXISTS bought (purchase_id TEXT NOT NULL, article TEXT NOT NULL);"

buying = Service("approval-buying", tables=TABLES)


@buying.on(PurchaseApproved)
async def buy(approved: PurchaseApproved, ctx: Context) -> PurchaseFulfilled:
    """Buy it."""
    await ctx.db.execute("INSERT INTO bought VALUES ($1, $2)", (approved.purchase_id, approved.article))
    return PurchaseFulfilled(purchase_id=approved.purchase_id, article=approved.article)
