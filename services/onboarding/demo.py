"""What `choreo demo onboarding` does: accounts are requested, and verified by a person who is quick here.

Nobody waits for weeks: the accounts that nobody verifies were requested a month ago, by the clock of who publishes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from random import Random
from time import monotonic

from choreo import Bus, Settings
from choreo.runtime.clock import SystemClock
from services.demo import DemoResult
from services.onboarding import services
from services.onboarding.events import AccountRequested, AccountVerified
from services.onboarding.sample import Fate, Sample, findings, of_fate, samples, welcomed
from services.trial import AtWork, staged

TITLE = "The onboarding: four services, a person, and a month that has passed already"
VERDICT = "Every account is active with its name and database, or closed and has left nothing."

_DAY_MS = 86_400_000


class _MonthAgo(SystemClock):
    """The clock of a program that published 31 days ago."""

    def now_ms(self) -> int:
        return super().now_ms() - 31 * _DAY_MS


async def run(settings: Settings, *, count: int = 60, seed: int = 7, duplicates: float = 0.1) -> DemoResult:
    """Run the onboarding on the log of these settings, in fresh stores, until every account is active or closed.

    Args:
        count: how many accounts are requested, drawn from `seed`.
        duplicates: the share of requests and verifications to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    chosen = samples(seed, count)
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await walk(stage, chosen, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(partial(findings, settings.store, chosen))
        events, dropped = await stage.grown(), stage.duplicates_dropped
    wrong = verdict.findings or findings(settings.store, chosen)  # once more, now that everything has stopped
    by_fate = {fate: len(of_fate(chosen, fate)) for fate in Fate}
    seconds = verdict.at - start
    counts = {
        "accounts requested": count,
        "verified by an administrator, active": by_fate[Fate.VERIFIED],
        "requested a month ago, closed": by_fate[Fate.ABANDONED],
        "name taken, closed": by_fate[Fate.REFUSED],
        f"events in {seconds:.2f} s": events,
        f"duplicates dropped ({twice:,} events came twice)": dropped,
    }
    data = {
        "requested": count,
        "outcomes": {str(fate): number for fate, number in by_fate.items()},
        "events": events,
        "seconds": round(seconds, 3),
        "duplicates_published": twice,
        "duplicates_dropped": dropped,
    }
    return DemoResult(title=TITLE, counts=counts, verdict=VERDICT, findings=wrong, look=_commands(settings), data=data)


async def walk(stage: AtWork, chosen: Sequence[Sample], *, duplicates: float = 0.0, seed: int = 0) -> int:
    """Request the accounts, and verify those who are to be once they are welcomed; returns how many events came twice."""
    twice = Random(seed)  # noqa: S311 - a reproducible choice, no secret
    wanted = of_fate(chosen, Fate.VERIFIED)
    async with Bus(stage.settings, "demo", stage.log, clock=_MonthAgo()) as long_ago:
        for account in of_fate(chosen, Fate.ABANDONED):
            await long_ago.publish(account)
    sagas: dict[str, str] = {}
    repeated = 0
    for account in wanted:
        sagas[account.account_id] = saga = await stage.bus.publish(account)
        if twice.random() < duplicates:
            await stage.bus.publish(account, event_id=saga)
            repeated += 1
    await stage.settle(partial(_not_welcomed, stage.settings.store, wanted))
    await asyncio.gather(*(stage.bus.publish(account) for account in of_fate(chosen, Fate.REFUSED)))
    for account in wanted:
        verified, saga = AccountVerified(account_id=account.account_id, administrator="demo"), sagas[account.account_id]
        again = twice.random() < duplicates
        repeated += again
        for _ in range(1 + again):
            await stage.bus.publish(verified, correlation_id=saga, event_id=f"verified-{saga}")
    return repeated


def _not_welcomed(stores: str, wanted: Sequence[AccountRequested]) -> list[str]:
    missing = {account.account_id for account in wanted} - welcomed(stores)
    return [f"{len(missing)} accounts are not welcomed yet"] if missing else []


def _commands(settings: Settings) -> dict[str, str]:
    return {
        "the accounts' events as they lie in the log": f"choreo topics tail onboarding.accounts --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.onboarding",
        "how each account ended": (
            f"sqlite3 {settings.store_of('onboarding-accounts', None)[10:]} 'SELECT * FROM outcomes LIMIT 5'"
        ),
    }
