"""The approval's contracts: each event, its topic and its key. The services share these and nothing else."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from choreo import Event, Failure

Amount = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2)]
"""Euros, exact to the cent."""


class PurchaseRequested(Event, topic="approval.purchases", key="purchase_id"):
    """Somebody wants something to be bought; it starts the saga."""

    purchase_id: str
    employee: str
    article: str
    amount: Amount


class ApprovalAsked(Event, topic="approval.requests", key="purchase_id"):
    """A manager is asked, and waited for. `level` 1 is the employee's own manager, 2 the manager's manager, and so on."""

    purchase_id: str
    employee: str
    manager: str
    level: int
    amount: Amount


class ApprovalAnswered(Event, topic="approval.answers", key="purchase_id"):
    """A manager's answer. Published from outside, into the purchase's saga."""

    purchase_id: str
    manager: str
    approved: bool


class AnswerRefused(Event, topic="approval.refusals", key="purchase_id"):
    """An answer that changes nothing, and why: it came second, or from somebody who was not asked."""

    purchase_id: str
    manager: str
    reason: str


class PurchaseApproved(Event, topic="approval.decisions", key="purchase_id"):
    """It may be bought."""

    purchase_id: str
    article: str
    by: str


class PurchaseRejected(Failure, topic="approval.decisions", key="purchase_id", ends="failed"):
    """It may not be bought."""

    purchase_id: str
    by: str
    reason: str


class PurchaseFulfilled(Event, topic="approval.purchases", key="purchase_id", ends="completed"):
    """It was bought."""

    purchase_id: str
    article: str
