"""Verdicts: one of three for each score. The branch is an event of its own, so that the saga shows which one was taken."""

from __future__ import annotations

from choreo import Context, Service
from services.fraud.events import TransactionApproved, TransactionBlocked, TransactionFlagged, TransactionScored

FLAG_FROM, BLOCK_FROM = 0.5, 0.8

verdicts = Service("fraud-verdicts")


@verdicts.on(TransactionScored)
async def decide(
    scored: TransactionScored, ctx: Context
) -> TransactionApproved | TransactionFlagged | TransactionBlocked:
    """Approve, flag or block it, and say so in one line of the log."""
    verdict = verdict_on(scored)
    ctx.log.info(
        "verdict",
        verdict=verdict.contract.type_name,
        transaction_id=scored.transaction_id,
        score=scored.score,
        model=scored.model,
    )
    return verdict


def verdict_on(scored: TransactionScored) -> TransactionApproved | TransactionFlagged | TransactionBlocked:
    """What becomes of a transaction."""
    transaction_id, card_id, score = scored.transaction_id, scored.card_id, scored.score
    if score < FLAG_FROM:
        return TransactionApproved(transaction_id=transaction_id, card_id=card_id, score=score)
    if score < BLOCK_FROM:
        return TransactionFlagged(transaction_id=transaction_id, card_id=card_id, amount=scored.amount, score=score)
    reason = f"a score of {score:.2f}, where {BLOCK_FROM} is blocked"
    return TransactionBlocked(
        transaction_id=transaction_id, card_id=card_id, amount=scored.amount, score=score, reason=reason
    )
