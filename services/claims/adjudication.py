"""Adjudication: the strict part. One handler, three questions in a fixed order, one decision.

The order is that of the lines below. Each answer is kept as soon as it is there, so that a later attempt (a register
was away, the process died) goes on where the earlier one ended. Whatever happens to those who react, claims are decided.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from choreo import Context, Retry, Service
from services.claims import registers
from services.claims.events import ClaimApproved, ClaimDenied, ClaimFiled, Finding

TABLES = """
CREATE TABLE IF NOT EXISTS decisions (
    claim_id TEXT NOT NULL,
    is_paid INTEGER NOT NULL,
    payout_cents INTEGER NOT NULL,
    last_stage TEXT NOT NULL
);
"""


@asynccontextmanager
async def clients() -> AsyncIterator[registers.Registers]:
    """What is `ctx.state`."""
    yield registers.connect()


adjudication = Service("claims-adjudication", tables=TABLES, lifespan=clients)


@adjudication.on(ClaimFiled, retry=Retry(attempts=50, within="2d", transient=(OSError, TimeoutError)))
async def adjudicate(claim: ClaimFiled, ctx: Context) -> ClaimApproved | ClaimDenied:
    """Eligibility, coverage, pricing, decision. The first "no" is the answer."""
    ask: registers.Registers = ctx.state
    eligible = await ctx.step("eligibility", ask.eligibility, claim)
    if not eligible.passed:
        return await _decide(claim, (eligible,), ctx)
    covered = await ctx.step("coverage", ask.coverage, claim)
    if not covered.passed:
        return await _decide(claim, (eligible, covered), ctx)
    priced = await ctx.step("pricing", ask.pricing, claim, covered)
    return await _decide(claim, (eligible, covered, priced), ctx)


async def _decide(claim: ClaimFiled, findings: tuple[Finding, ...], ctx: Context) -> ClaimApproved | ClaimDenied:
    decision = decision_on(claim, findings)
    is_paid = isinstance(decision, ClaimApproved)
    payout = int(decision.payout.scaleb(2)) if isinstance(decision, ClaimApproved) else 0
    await ctx.db.execute(
        "INSERT INTO decisions VALUES ($1, $2, $3, $4)", (claim.claim_id, int(is_paid), payout, findings[-1].stage)
    )
    return decision


def decision_on(claim: ClaimFiled, findings: tuple[Finding, ...]) -> ClaimApproved | ClaimDenied:
    """What follows from the findings, the last of which decides."""
    last = findings[-1]
    about = {"claim_id": claim.claim_id, "policy_id": claim.policy_id, "peril": claim.peril}
    if last.passed:
        return ClaimApproved(**about, payout=last.amount, findings=findings)
    return ClaimDenied(**about, reason=f"{last.stage}: {last.basis}", findings=findings)
