"""The contracts of fraud detection."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from choreo import Event, Failure

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
"""An amount in euros, exact to the cent."""

Score = Annotated[float, Field(ge=0, le=1)]
"""How likely it is that somebody else has the card."""


class TransactionMade(Event, topic="fraud.transactions", key="card_id"):
    """Somebody pays with a card; it starts the saga. A card's transactions stay in their order."""

    transaction_id: str
    card_id: str
    amount: Money
    category: str
    country: str
    home_country: str


class TransactionScored(Event, topic="fraud.scores", key="card_id"):
    """What the model thinks of the transaction, and which model it was."""

    transaction_id: str
    card_id: str
    amount: Money
    score: Score
    model: str


class TransactionApproved(Event, topic="fraud.verdicts", key="card_id", ends="completed"):
    """The transaction goes through."""

    transaction_id: str
    card_id: str
    score: Score


class TransactionFlagged(Event, topic="fraud.verdicts", key="card_id", ends="completed"):
    """The transaction goes through, and an analyst looks at it afterwards."""

    transaction_id: str
    card_id: str
    amount: Money
    score: Score


class TransactionBlocked(Failure, topic="fraud.verdicts", key="card_id", ends="failed"):
    """The transaction is refused."""

    transaction_id: str
    card_id: str
    amount: Money
    score: Score
    reason: str
