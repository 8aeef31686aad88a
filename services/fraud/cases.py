"""Cases: what analysts look at. A leaf: no verdict waits for it."""

from __future__ import annotations

from choreo import Context, Service
from services.fraud.events import TransactionBlocked, TransactionFlagged

TABLES = """
CREATE TABLE IF NOT EXISTS cases (
    transaction_id TEXT NOT NULL,
    card_id TEXT NOT NULL,
    verdict TEXT NOT NULL,
    amount_cents INTEGER NOT NULL,
    score DOUBLE PRECISION NOT NULL
);
CREATE INDEX IF NOT EXISTS cases_of_card ON cases (card_id);
"""

cases = Service("fraud-cases", tables=TABLES)


@cases.on(TransactionFlagged, TransactionBlocked)
async def open_case(event: TransactionFlagged | TransactionBlocked, ctx: Context) -> None:
    """Put it on the analysts' list."""
    await ctx.db.execute(
        "INSERT INTO cases VALUES ($1, $2, $3, $4, $5)",
        (
            event.transaction_id,
            event.card_id,
            event.contract.type_name,
            int(event.amount.scaleb(2)),
            event.score,
        ),
    )
