"""The scorer: asks the model about each transaction. The part that needs most of the CPUs, and is scaled by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from choreo import Context, Retry, Service
from services.fraud.events import TransactionMade, TransactionScored
from services.fraud.model import Model, ModelUnavailableError

PATIENT = Retry(
    attempts=10_000, within="1d", max_delay="10s", in_place="10s", transient=(ModelUnavailableError, TimeoutError)
)
"""A model that is away is waited for, for a day, and in place: no transaction overtakes an earlier one of its card."""


@asynccontextmanager
async def model() -> AsyncIterator[Model]:
    """What is `ctx.state`."""
    yield Model.of_environment()


scorer = Service("fraud-scorer", lifespan=model)


@scorer.on(TransactionMade, retry=PATIENT)
async def score(made: TransactionMade, ctx: Context) -> TransactionScored:
    """Score it."""
    how_likely, version = ctx.state.score(made)
    return TransactionScored(
        transaction_id=made.transaction_id,
        card_id=made.card_id,
        amount=made.amount,
        score=how_likely,
        model=version,
    )
