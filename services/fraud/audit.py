"""What must come of transactions, and whether it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from services.books import differences, rows
from services.evidence import Seen
from services.fraud.events import TransactionMade, TransactionScored
from services.fraud.model import Model
from services.fraud.verdicts import verdict_on

Verdicts = dict[str, str]
"""The type of each transaction's verdict."""


def expected(made: Iterable[TransactionMade], model: Model) -> Verdicts:
    """What this model makes of them, one after the other, without events."""
    return {each.transaction_id: verdict_on(_scored(each, model)).contract.type_name for each in made}


def _scored(made: TransactionMade, model: Model) -> TransactionScored:
    score, version = model.score(made)
    about = {"transaction_id": made.transaction_id, "card_id": made.card_id, "amount": made.amount}
    return TransactionScored(**about, score=score, model=version)


def findings(stores: str, verdicts: Verdicts) -> list[str]:
    """What is wrong in the stores: each suspicious transaction is one case, and no other is."""
    wanted = [
        (transaction, verdict) for transaction, verdict in list(verdicts.items()) if verdict != "TransactionApproved"
    ]
    there = rows(stores, "fraud-cases", "SELECT transaction_id, verdict FROM cases")
    return differences("cases of", Counter(there), Counter(wanted))


def log_findings(seen: Sequence[Seen], verdicts: Verdicts) -> list[str]:
    """What is wrong in the log: each transaction has one score and one verdict, and each card's are in its order."""
    ended = [each for each in seen if each.at.topic == "fraud.verdicts"]
    scored = [each.data["transaction_id"] for each in seen if each.at.topic == "fraud.scores"]
    given = [(each.data["transaction_id"], each.metadata.type_name) for each in ended]
    return [
        *differences("scores of", Counter(scored), Counter(list(verdicts))),
        *differences("verdicts on", Counter(given), Counter(verdicts.items())),
        *(f"verdicts: {one} came after {other}, of the same card" for other, one in _disordered(ended)),
    ]


def _disordered(ended: Sequence[Seen]) -> list[tuple[str, str]]:
    """Neighbours among a card's verdicts whose transactions were the other way round; their ids grow."""
    cards: dict[str, list[str]] = {}
    for each in sorted(ended, key=lambda one: (one.at, one.offset)):
        cards.setdefault(each.data["card_id"], []).append(each.data["transaction_id"])
    return [(one, other) for verdicts in cards.values() for one, other in pairwise(verdicts) if one > other]
