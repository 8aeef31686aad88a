"""What must come of claims, and whether it has: the flow as one sequential program, without events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from services.books import differences, rows
from services.claims.events import ClaimFiled
from services.claims.registers import COVERS, NOTHING, POLICIES
from services.evidence import Seen

STAGES = ("eligibility", "coverage", "pricing")


class Outcome(NamedTuple):
    """How a claim ends: what is paid, 0 if it is denied, and the last stage it came to."""

    payout: Decimal
    last_stage: str

    @property
    def decision(self) -> str:
        """The type of the event that says so."""
        return "ClaimApproved" if self.payout else "ClaimDenied"

    @property
    def stages(self) -> tuple[str, ...]:
        """What was asked, in order."""
        return STAGES[: STAGES.index(self.last_stage) + 1]


def outcome_of(claim: ClaimFiled) -> Outcome:
    """How this claim ends."""
    policy = POLICIES.get(claim.policy_id)
    if policy is None or not policy.begins <= claim.happened_on <= policy.ends:
        return Outcome(NOTHING, "eligibility")
    cover = COVERS.get((policy.product, claim.peril))
    if cover is None:
        return Outcome(NOTHING, "coverage")
    return Outcome(max(NOTHING, min(claim.amount, cover.limit) - cover.excess), "pricing")


def decisions_findings(stores: str, filed: Iterable[ClaimFiled]) -> list[str]:
    """What is wrong with the decisions, whatever became of those who react to them."""
    sql = "SELECT claim_id, is_paid, payout_cents, last_stage FROM decisions"
    wanted = [
        (claim.claim_id, int(end.payout > 0), int(end.payout.scaleb(2)), end.last_stage)
        for claim, end in ((claim, outcome_of(claim)) for claim in filed)
    ]
    return differences("decisions on", Counter(rows(stores, "claims-adjudication", sql)), Counter(wanted))


def findings(stores: str, filed: Sequence[ClaimFiled]) -> list[str]:
    """What is wrong in any of the stores."""
    ends = {claim.claim_id: outcome_of(claim) for claim in filed}
    documents = [
        (claim_id, kind) for claim_id, end in ends.items() for kind in ("ClaimFiled", end.decision, "ClaimantNotified")
    ]
    kept = rows(stores, "claims-archive", "SELECT claim_id, kind FROM documents")
    letters = rows(stores, "claims-notices", "SELECT claim_id FROM letters")
    reported = rows(stores, "claims-reporting", "SELECT peril, paid, denied, payout_cents FROM totals")
    return [
        *decisions_findings(stores, filed),
        *differences("documents of", Counter(kept), Counter(documents)),
        *differences("letters about", Counter(letters), Counter((claim_id,) for claim_id in ends)),
        *differences("totals of", {peril: tuple(total) for peril, *total in reported}, totals(filed)),
    ]


def totals(filed: Iterable[ClaimFiled]) -> dict[str, tuple[int, int, int]]:
    """What the report must say of each peril: how many are paid and denied, and the cents."""
    paid, denied, cents = Counter[str](), Counter[str](), Counter[str]()
    for claim in filed:
        end = outcome_of(claim)
        (paid if end.payout else denied)[claim.peril] += 1
        cents[claim.peril] += int(end.payout.scaleb(2))
    return {peril: (paid[peril], denied[peril], cents[peril]) for peril in cents}


def log_findings(seen: Iterable[Seen], filed: Iterable[ClaimFiled]) -> list[str]:
    """What is wrong in the log: each claim has one decision, on the findings of the stages it came to, in their order."""
    decided = [each for each in seen if each.at.topic == "claims.decided"]
    given = [
        (each.data["claim_id"], each.metadata.type_name, *(finding["stage"] for finding in each.data["findings"]))
        for each in decided
    ]
    wanted = [(claim.claim_id, end.decision, *end.stages) for claim, end in ((one, outcome_of(one)) for one in filed)]
    return differences("decisions in the log on", Counter(given), Counter(wanted))
