"""Notices: tells managers what they are asked, and employees what became of it. A leaf: nobody waits for it."""

from __future__ import annotations

from typing import TypeAlias

from choreo import Context, Service
from services.approval.events import (
    AnswerRefused,
    ApprovalAsked,
    PurchaseFulfilled,
    PurchaseRejected,
)

TABLES = (
    "CREATE TABLE IF NOT EXISTS notices (purchase_id TEXT NOT NULL, type_name TEXT NOT NULL, message TEXT NOT NULL);"
)

Told: TypeAlias = ApprovalAsked | AnswerRefused | PurchaseFulfilled | PurchaseRejected

MESSAGES: dict[type[Told], str] = {
    ApprovalAsked: "{0.manager}: may {0.employee} spend {0.amount} € ({0.purchase_id})?",
    AnswerRefused: "{0.manager}: your answer about {0.purchase_id} changes nothing: {0.reason}.",
    PurchaseFulfilled: "{0.article} is bought ({0.purchase_id}).",
    PurchaseRejected: "{0.purchase_id} is rejected by {0.by}: {0.reason}.",
}

notices = Service("approval-notices", tables=TABLES)


@notices.on(*MESSAGES)
async def notify(event: Told, ctx: Context) -> None:
    """Queue the message for whom it concerns."""
    await ctx.db.execute(
        "INSERT INTO notices VALUES ($1, $2, $3)",
        (event.purchase_id, event.contract.type_name, MESSAGES[type(event)].format(event)),
    )
