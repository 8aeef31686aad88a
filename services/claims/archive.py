"""Archive: keeps what was filed and what was decided, word for word. Reacts, and nobody waits for it."""

from __future__ import annotations

from choreo import Context, Service
from services.claims.events import ClaimApproved, ClaimArchived, ClaimDenied, ClaimFiled

TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    document TEXT NOT NULL,     -- the event's id
    claim_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS documents_of_claim ON documents (claim_id);
"""

archive = Service("claims-archive", tables=TABLES)


@archive.on(ClaimFiled)
async def file(claim: ClaimFiled, ctx: Context) -> None:
    """Put the claim into the archive."""
    await _keep(claim, ctx)


@archive.on(ClaimApproved, ClaimDenied)
async def close(decision: ClaimApproved | ClaimDenied, ctx: Context) -> ClaimArchived:
    """Put the decision beside it."""
    await _keep(decision, ctx)
    return ClaimArchived(claim_id=decision.claim_id, document=ctx.event_id)


async def _keep(event: ClaimFiled | ClaimApproved | ClaimDenied, ctx: Context) -> None:
    await ctx.db.execute(
        "INSERT INTO documents VALUES ($1, $2, $3, $4)",
        (ctx.event_id, event.claim_id, event.contract.type_name, event.model_dump_json()),
    )
