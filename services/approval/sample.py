"""Purchases to try the approval with, and what must come of them: the same seed gives the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from random import Random
from typing import NamedTuple

from services.approval.events import ApprovalAnswered, PurchaseRequested
from services.books import differences, rows


class Story(StrEnum):
    """What happens to a purchase."""

    CHEAP = "approved without asking"
    APPROVED = "approved by a manager"
    REJECTED = "rejected by a manager"
    CHANGED_MIND = "approved, and then rejected by the same manager"
    STRANGER = "rejected by somebody who was not asked, and then approved"


class Sample(NamedTuple):
    """A purchase and its story."""

    requested: PurchaseRequested
    story: Story

    @property
    def answers(self) -> list[ApprovalAnswered]:
        """What people answer, in their order."""
        said: dict[Story, list[tuple[str, bool]]] = {
            Story.CHEAP: [],
            Story.APPROVED: [("grace", True)],
            Story.REJECTED: [("grace", False)],
            Story.CHANGED_MIND: [("grace", True), ("grace", False)],
            Story.STRANGER: [("alan", False), ("grace", True)],
        }
        purchase = self.requested.purchase_id
        return [
            ApprovalAnswered(purchase_id=purchase, manager=who, approved=approved) for who, approved in said[self.story]
        ]


def samples(seed: int, number: int) -> list[Sample]:
    """`number` purchases drawn from `seed`, by employees whose manager is grace."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_sample(draw, f"p-{seed}-{place:04}") for place in range(number)]


def _sample(draw: Random, name: str) -> Sample:
    story = draw.choice(list(Story))
    amount = Decimal(draw.randint(100, 50_000) if story is Story.CHEAP else draw.randint(50_001, 900_000)).scaleb(-2)
    article = draw.choice(("a printer", "a desk", "a fourth monitor", "a robot arm"))
    requested = PurchaseRequested(
        purchase_id=name, employee=draw.choice(("ada", "alan")), article=article, amount=amount
    )
    return Sample(requested, story)


def asked(stores: str) -> set[str]:
    """The purchases about which somebody was asked."""
    return {row[0] for row in rows(stores, "approval-desk", "SELECT purchase_id FROM asked")}


def findings(stores: str, chosen: Sequence[Sample]) -> list[str]:
    """What the stores hold that is not as it must be once all these purchases have ended, one sentence each."""
    decided = rows(stores, "approval-desk", "SELECT purchase_id, decided_by || ' has ' || decision FROM decisions")
    bought = Counter(rows(stores, "approval-buying", "SELECT purchase_id, article FROM bought"))
    told = Counter(rows(stores, "approval-notices", "SELECT purchase_id, type_name FROM notices"))
    return [
        *differences("decision about", dict(decided), {one.requested.purchase_id: _decision(one) for one in chosen}),
        *differences("times bought:", bought, {key: 1 for one in chosen if (key := _bought(one))}),
        *differences("notices about", told, Counter(notice for one in chosen for notice in _notices(one))),
    ]


def _decision(sample: Sample) -> str:
    if sample.story is Story.CHEAP:
        return f"{sample.requested.employee} has approved"
    return f"grace has {'rejected' if sample.story is Story.REJECTED else 'approved'}"


def _bought(sample: Sample) -> tuple[str, str] | None:
    rejected = sample.story is Story.REJECTED
    return None if rejected else (sample.requested.purchase_id, sample.requested.article)


def _notices(sample: Sample) -> Iterable[tuple[str, str]]:
    name, story = sample.requested.purchase_id, sample.story
    if story is not Story.CHEAP:
        yield name, "ApprovalAsked"
    if story in {Story.CHANGED_MIND, Story.STRANGER}:
        yield name, "AnswerRefused"
    yield name, "PurchaseRejected" if story is Story.REJECTED else "PurchaseFulfilled"
