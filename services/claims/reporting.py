"""Reporting: how many claims of which kind, and what they cost. A leaf."""

from __future__ import annotations

from choreo import Context, Service
from services.claims.events import ClaimApproved, ClaimDenied

TABLES = """
CREATE TABLE IF NOT EXISTS totals (
    peril TEXT PRIMARY KEY,
    paid INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    payout_cents INTEGER NOT NULL
);
"""

_ADD = """
INSERT INTO totals VALUES ($1, $2, $3, $4) ON CONFLICT (peril) DO UPDATE SET
    paid = totals.paid + excluded.paid,
    denied = totals.denied + excluded.denied,
    payout_cents = totals.payout_cents + excluded.payout_cents
"""

reporting = Service("claims-reporting", tables=TABLES)


@reporting.on(ClaimApproved, ClaimDenied)
async def report(decision: ClaimApproved | ClaimDenied, ctx: Context) -> None:
    """Add it to the totals of its peril."""
    payout = int(decision.payout.scaleb(2)) if isinstance(decision, ClaimApproved) else None
    counts = (0, 1, 0) if payout is None else (1, 0, payout)
    await ctx.db.execute(_ADD, (decision.peril, *counts))
