"""The desk: asks the managers, one above the other, and decides each purchase exactly once.

Whoever answers first decides: the table `decisions` has one row a purchase, and only the insert that makes it counts.
A second answer is refused, by an event that says why.
"""

from __future__ import annotations

from choreo import Context, Service
from services.approval.events import (
    AnswerRefused,
    ApprovalAnswered,
    ApprovalAsked,
    PurchaseApproved,
    PurchaseRejected,
    PurchaseRequested,
)
from services.approval.people import LIMIT, manager_at

TABLES = """
CREATE TABLE IF NOT EXISTS purchases (purchase_id TEXT PRIMARY KEY, article TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asked (purchase_id TEXT NOT NULL, manager TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS asked_by_purchase ON asked (purchase_id);
CREATE TABLE IF NOT EXISTS decisions (purchase_id TEXT PRIMARY KEY, decided_by TEXT NOT NULL, decision TEXT NOT NULL);
"""

desk = Service("approval-desk", tables=TABLES)


@desk.on(PurchaseRequested)
async def begin(requested: PurchaseRequested, ctx: Context) -> PurchaseApproved | ApprovalAsked:
    """Approve what is cheap, and what the head of the company wants; ask the employee's manager about the rest."""
    purchase = requested.purchase_id
    await ctx.db.execute("INSERT INTO purchases VALUES ($1, $2)", (purchase, requested.article))
    manager = manager_at(requested.employee, 1)
    if manager is not None and requested.amount > LIMIT:
        return await _ask(purchase, requested.employee, 1, manager, requested, ctx)
    await _is_decided_now(purchase, requested.employee, "approved", ctx)
    return PurchaseApproved(purchase_id=purchase, article=requested.article, by=requested.employee)


@desk.deadline(ApprovalAsked, within="2d", unless=(PurchaseApproved, PurchaseRejected))
async def escalate(asked: ApprovalAsked, ctx: Context) -> ApprovalAsked | PurchaseRejected | None:
    """Two days without an answer: ask one level higher; above the head of the company nobody can be asked."""
    above = manager_at(asked.employee, asked.level + 1)
    if above is not None:
        return await _ask(asked.purchase_id, asked.employee, asked.level + 1, above, asked, ctx)
    if await _is_decided_now(asked.purchase_id, "nobody", "rejected", ctx):
        return PurchaseRejected(purchase_id=asked.purchase_id, by="nobody", reason="nobody has answered")
    return None


@desk.on(ApprovalAnswered)
async def decide(answer: ApprovalAnswered, ctx: Context) -> PurchaseApproved | PurchaseRejected | AnswerRefused:
    """Do what the first of those who were asked says."""
    purchase, manager = answer.purchase_id, answer.manager
    asked = "SELECT 1 FROM asked WHERE purchase_id = $1 AND manager = $2"
    if not await ctx.db.fetch_one(asked, (purchase, manager)):
        return AnswerRefused(purchase_id=purchase, manager=manager, reason=f"{manager} was not asked")
    if not await _is_decided_now(purchase, manager, "approved" if answer.approved else "rejected", ctx):
        first = await ctx.db.fetch_one("SELECT decided_by, decision FROM decisions WHERE purchase_id = $1", (purchase,))
        reason = f"{first[0]} has {first[1]} it already" if first else "it is decided already"
        return AnswerRefused(purchase_id=purchase, manager=manager, reason=reason)
    if not answer.approved:
        return PurchaseRejected(purchase_id=purchase, by=manager, reason="a manager said no")
    article = await ctx.db.fetch_one("SELECT article FROM purchases WHERE purchase_id = $1", (purchase,))
    return PurchaseApproved(purchase_id=purchase, article=article[0] if article else "", by=manager)


async def _ask(
    purchase: str, employee: str, level: int, manager: str, about: PurchaseRequested | ApprovalAsked, ctx: Context
) -> ApprovalAsked:
    await ctx.db.execute("INSERT INTO asked VALUES ($1, $2)", (purchase, manager))
    return ApprovalAsked(purchase_id=purchase, employee=employee, manager=manager, level=level, amount=about.amount)


async def _is_decided_now(purchase: str, by: str, decision: str, ctx: Context) -> bool:
    """Whether it was open, and is decided with this."""
    made = await ctx.db.execute(
        "INSERT INTO decisions VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", (purchase, by, decision)
    )
    return made == 1
