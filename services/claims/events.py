"""The contracts of claims."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from choreo import Event, Failure

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
"""An amount in euros, exact to the cent."""

Stage = Literal["eligibility", "coverage", "pricing"]


class Finding(BaseModel):
    """What one stage of the adjudication found, as an auditor wants to read it.

    Attributes:
        amount: what the insurer owes as far as this stage can tell.
        basis: the rule or the register that it rests on.
    """

    model_config = ConfigDict(frozen=True)

    stage: Stage
    passed: bool
    amount: Money
    basis: str


class ClaimFiled(Event, topic="claims.filed", key="claim_id"):
    """A policyholder wants a damage paid; it starts the saga."""

    claim_id: str
    policy_id: str
    peril: str
    amount: Money
    happened_on: date


class ClaimApproved(Event, topic="claims.decided", key="claim_id", ends="completed"):
    """The claim is paid, on these grounds."""

    claim_id: str
    policy_id: str
    peril: str
    payout: Money
    findings: tuple[Finding, ...]


class ClaimDenied(Failure, topic="claims.decided", key="claim_id", ends="failed"):
    """The claim is not paid, on these grounds; the last one is why."""

    claim_id: str
    policy_id: str
    peril: str
    reason: str
    findings: tuple[Finding, ...]


class ClaimantNotified(Event, topic="claims.notices", key="claim_id"):
    """The policyholder has been written to."""

    claim_id: str
    text: str
