"""Archive: keeps what was filed, decided and told, word for word. A leaf: nobody waits for it."""

from __future__ import annotations

from choreo import Context, Service
from services.claims.events import ClaimantNotified, ClaimApproved, ClaimDenied, ClaimFiled

TABLES = """
CREATE TABLE IF NOT EXISTS documents (
    event_id TEXT NOT NULL,
    saga TEXT NOT NULL,
    claim_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS documents_of_claim ON documents (claim_id);
"""

Kept = ClaimFiled | ClaimApproved | ClaimDenied | ClaimantNotified

archive = Service("claims-archive", tables=TABLES)


@archive.on(ClaimFiled, ClaimApproved, ClaimDenied, ClaimantNotified)
async def keep(event: Kept, ctx: Context) -> None:
    """Put it into the archive."""
    await ctx.db.execute(
        "INSERT INTO documents VALUES ($1, $2, $3, $4, $5)",
        (ctx.event_id, ctx.correlation_id, event.claim_id, event.contract.type_name, event.model_dump_json()),
    )
