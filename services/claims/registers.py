"""The insurer's older systems, which are asked one after the other: policies, covers, prices.

They stand for servers elsewhere: any of them may be slow or away (`OSError`), and asking twice may cost twice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.claims.events import ClaimFiled, Finding

NOTHING = Decimal("0.00")


class Policy(NamedTuple):
    """A contract of insurance."""

    begins: date
    ends: date
    product: str


class Cover(NamedTuple):
    """What a product pays for a peril at most, and what the policyholder bears."""

    limit: Decimal
    excess: Decimal


POLICIES = {
    f"p-{number:02}": Policy(
        begins=date(2024 + number % 3, 1, 1),
        ends=date(2027, 12, 31) if number % 9 else date(2026, 6, 30),
        product=("home", "motor", "travel")[number % 3],
    )
    for number in range(1, 41)
}

COVERS = {
    ("home", "water"): Cover(Decimal("20000.00"), Decimal("250.00")),
    ("home", "theft"): Cover(Decimal("8000.00"), Decimal("500.00")),
    ("motor", "collision"): Cover(Decimal("50000.00"), Decimal("300.00")),
    ("motor", "theft"): Cover(Decimal("30000.00"), Decimal("500.00")),
    ("travel", "theft"): Cover(Decimal("1500.00"), Decimal("100.00")),
    ("travel", "illness"): Cover(Decimal("10000.00"), Decimal("0.00")),
}


class Registers:
    """Clients of the three systems. Each answers one question about a claim."""

    async def eligibility(self, claim: ClaimFiled) -> Finding:
        """Was the policy in force on the day?"""
        policy = POLICIES.get(claim.policy_id)
        if policy is None:
            return Finding(stage="eligibility", passed=False, amount=NOTHING, basis=f"no policy {claim.policy_id}")
        in_force = policy.begins <= claim.happened_on <= policy.ends
        basis = f"policy {claim.policy_id} runs from {policy.begins} to {policy.ends}"
        return Finding(stage="eligibility", passed=in_force, amount=claim.amount if in_force else NOTHING, basis=basis)

    async def coverage(self, claim: ClaimFiled) -> Finding:
        """Does the policy's product cover the peril, and up to what?"""
        product = POLICIES[claim.policy_id].product
        cover = COVERS.get((product, claim.peril))
        if cover is None:
            basis = f"{product} does not cover {claim.peril}"
            return Finding(stage="coverage", passed=False, amount=NOTHING, basis=basis)
        basis = f"{product} covers {claim.peril} up to {cover.limit}"
        return Finding(stage="coverage", passed=True, amount=min(claim.amount, cover.limit), basis=basis)

    async def pricing(self, claim: ClaimFiled, covered: Finding) -> Finding:
        """What is left of the covered amount after the excess?"""
        cover = COVERS[POLICIES[claim.policy_id].product, claim.peril]
        payout = max(NOTHING, covered.amount - cover.excess)
        return Finding(stage="pricing", passed=payout > 0, amount=payout, basis=f"an excess of {cover.excess}")


connect: Callable[[], Registers] = Registers
"""Makes the clients; a test or a demo puts less reliable ones here."""
