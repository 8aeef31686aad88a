"""Notices: writes to the policyholder. Reacts, and nobody waits for it."""

from __future__ import annotations

from choreo import Context, Retry, Service
from services.claims.events import ClaimantNotified, ClaimApproved, ClaimDenied

notices = Service("claims-notices", tables="CREATE TABLE IF NOT EXISTS letters (claim_id TEXT, text TEXT)")


@notices.on(ClaimApproved, ClaimDenied, retry=Retry(transient=(OSError,)))
async def notify(decision: ClaimApproved | ClaimDenied, ctx: Context) -> ClaimantNotified:
    """Queue the letter."""
    text = letter_about(decision)
    await ctx.db.execute("INSERT INTO letters VALUES ($1, $2)", (decision.claim_id, text))
    return ClaimantNotified(claim_id=decision.claim_id, text=text)


def letter_about(decision: ClaimApproved | ClaimDenied) -> str:
    """What the policyholder reads."""
    if isinstance(decision, ClaimApproved):
        return f"We pay {decision.payout} € for your claim {decision.claim_id}."
    return f"We cannot pay your claim {decision.claim_id}. The reason is {decision.reason}."
