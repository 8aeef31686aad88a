"""Accounts to try the onboarding with, and what must come of them: the same seed gives the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

from services.books import differences, rows
from services.onboarding.databases import database_of
from services.onboarding.events import AccountRequested

ABANDONED_SHARE, REFUSED_SHARE = 0.2, 0.15


class Fate(StrEnum):
    """What becomes of an account: its row in `outcomes`."""

    VERIFIED = "active"
    ABANDONED = "not_ready"
    REFUSED = "name_refused"


class Sample(NamedTuple):
    """An account and its fate."""

    requested: AccountRequested
    fate: Fate


def samples(seed: int, number: int) -> list[Sample]:
    """`number` accounts drawn from `seed`. One that is refused wants the name of the first, which is verified."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_sample(draw, seed, place) for place in range(number)]


def _sample(draw: Random, seed: int, place: int) -> Sample:
    drawn, fate = draw.random(), Fate.VERIFIED
    if place and drawn < ABANDONED_SHARE:
        fate = Fate.ABANDONED
    elif place and drawn < ABANDONED_SHARE + REFUSED_SHARE:
        fate = Fate.REFUSED
    company = f"Company {seed} {0 if fate is Fate.REFUSED else place}"
    name = f"a-{seed}-{place:04}"
    return Sample(AccountRequested(account_id=name, company=company, email=f"{name}@example.com"), fate)


def of_fate(chosen: Iterable[Sample], *fates: Fate) -> list[AccountRequested]:
    """The accounts with one of these fates."""
    return [sample.requested for sample in chosen if sample.fate in fates]


def welcomed(stores: str) -> set[str]:
    """The accounts that were welcomed: an administrator may verify them now."""
    return {row[0] for row in rows(stores, "onboarding-mail", "SELECT account_id FROM mails WHERE kind = 'welcome'")}


def findings(stores: str, chosen: Sequence[Sample]) -> list[str]:
    """What the stores hold that is not as it must be once all these accounts have ended, one sentence each."""
    ends = dict(rows(stores, "onboarding-accounts", "SELECT account_id, outcome FROM outcomes"))
    names = rows(stores, "onboarding-tenants", "SELECT account_id, count(*) FROM tenants GROUP BY account_id")
    found = {row[0]: 1 for row in rows(stores, "onboarding-databases", _DATABASES)}
    used = [account.account_id for account in of_fate(chosen, Fate.VERIFIED)]
    not_used = [account.account_id for account in of_fate(chosen, Fate.ABANDONED, Fate.REFUSED)]
    return [
        *differences("outcome of", ends, {sample.requested.account_id: str(sample.fate) for sample in chosen}),
        *differences("names of", dict(names), dict.fromkeys(used, 1)),
        *differences("database", found, {database_of(account): 1 for account in used}),
        *_undone(stores, {database_of(account) for account in not_used}),
        *_mails(stores, used, not_used),
    ]


def _undone(stores: str, databases: set[str]) -> list[str]:
    """What had not begun when its account was closed never did, so not everything has to be undone; nothing twice."""
    names = Counter(rows(stores, "onboarding-tenants", "SELECT tenant FROM deleted_tenants"))
    dropped = Counter(rows(stores, "onboarding-databases", "SELECT name FROM dropped_databases"))
    return [
        *(f"{what} was undone {times} times" for (what,), times in (names + dropped).items() if times > 1),
        *(f"database {name} was dropped, and its account is used" for (name,) in dropped if name not in databases),
    ]


_DATABASES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'documents~_%' ESCAPE '~'"


def _mails(stores: str, used: Iterable[str], not_used: Iterable[str]) -> list[str]:
    """Whoever was closed while still being made ready may have been welcomed or not."""
    sent = Counter(rows(stores, "onboarding-mail", "SELECT account_id, kind FROM mails"))
    twice = [f"mail {' '.join(mail)} was sent {times} times" for mail, times in sent.items() if times > 1]
    expected = {(account, kind) for account in used for kind in ("welcome", "activated")}
    expected |= {(account, "closed") for account in not_used}
    missing = [f"mail {' '.join(mail)} was not sent" for mail in sorted(expected - set(sent))]
    wrong = [mail for mail in sent if mail not in expected and mail[1] != "welcome"]
    return [*twice, *missing, *(f"mail {' '.join(mail)} was sent" for mail in wrong)]
