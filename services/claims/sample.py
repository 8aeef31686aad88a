"""Claims to try the flow with: the same seed gives the same ones, to be paid and to be denied mixed."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random

from services.claims.events import ClaimFiled

_PERILS = {"home": ("water", "theft"), "motor": ("collision", "theft"), "travel": ("theft", "illness")}
_WRONG_SHARE = 0.1  # of policies, of perils and of days
_FIRST_DAY, _DAYS = date(2026, 1, 1), 300


def claims(seed: int, number: int) -> list[ClaimFiled]:
    """`number` claims drawn from `seed`; a longer list begins with the shorter one."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_claim(draw, f"c-{seed}-{place:05}") for place in range(1, number + 1)]


def _claim(draw: Random, claim_id: str) -> ClaimFiled:
    policy = draw.randint(1, 40)
    product = ("home", "motor", "travel")[policy % 3]
    perils = ("meteorite",) if draw.random() < _WRONG_SHARE else _PERILS[product]
    return ClaimFiled(
        claim_id=claim_id,
        policy_id="p-99" if draw.random() < _WRONG_SHARE else f"p-{policy:02}",
        peril=draw.choice(perils),
        amount=Decimal(round(draw.lognormvariate(6.5, 1.2) * 100)).scaleb(-2),
        happened_on=_FIRST_DAY + timedelta(days=draw.randrange(_DAYS)),
    )
