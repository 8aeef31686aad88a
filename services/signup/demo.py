"""What `choreo demo signup` does: users register, and everybody has one greeting and one profile afterwards."""

from __future__ import annotations

from functools import partial
from time import monotonic

from choreo import Settings
from services.demo import DemoResult
from services.signup import services
from services.signup.audit import findings, users
from services.trial import staged


async def run(settings: Settings, *, count: int = 200, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Let users register, a share of them twice under one event id, and wait until all are served.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    registered = users(seed, count)
    look = partial(findings, settings.store, registered)
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await stage.publish(registered, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(look)
        events, dropped = await stage.grown(), stage.duplicates_dropped
    seconds = verdict.at - start
    store = settings.store_of("signup-analytics", None)[10:]
    return DemoResult(
        title="Signing up: one event, three services that do not know each other",
        counts={
            "users registered": count,
            f"events in {seconds:.2f} s": events,
            f"duplicates dropped ({twice:,} users registered twice)": dropped,
        },
        verdict="Everybody has one greeting and one profile, and was counted once.",
        findings=verdict.findings or look(),
        look={
            "the events as they lie in the log": f"choreo topics tail signup.users signup.emails --log {settings.log}",
            "who reacts to what, read from the services' own code": "choreo graph services.signup",
            "what was counted": f"sqlite3 {store} 'SELECT * FROM counts'",
        },
        data={
            "started": count,
            "events": events,
            "seconds": round(seconds, 3),
            "duplicates_published": twice,
            "duplicates_dropped": dropped,
        },
    )
