"""What `choreo demo lake` does: three days of clicks and their nightly tables, and then the first of them from the log again."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic

from choreo import Settings
from services.books import rows
from services.demo import DemoResult
from services.lake import services
from services.lake.replay import replay
from services.lake.sample import findings, publish, sample
from services.trial import staged

TITLE = "The lake: a stream and nightly tables, loaded in batches, and a day rebuilt from the log"
VERDICT = "Every click is in the table once, and the rebuilt day is the same byte for byte."


async def run(settings: Settings, *, count: int = 2000, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Run the lake on the log of these settings, in fresh stores, until every click is loaded.

    Args:
        count: how many clicks there are, drawn from `seed`, on three days of this week.
        duplicates: the share of clicks to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    given = sample(seed, count, last=(datetime.now(UTC) - timedelta(days=3)).date())
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await publish(stage.settings, stage.log, given, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(partial(findings, settings.store, given))
        events, dropped = await stage.grown(), stage.duplicates_dropped
        day = given.days[0]
        made = await replay(settings, day, stage.log)
    wrong = verdict.findings or findings(settings.store, given)  # once more, now that everything has stopped
    if not made.is_same:
        wrong = [*wrong, f"the table of {day}, rebuilt from the log, is another one"]
    ((batches,),) = rows(settings.store, "lake-loader", "SELECT count(*) FROM batches")
    ((late,),) = rows(settings.store, "lake-reports", "SELECT sum(late) FROM reports")
    seconds, digest = verdict.at - start, hashlib.sha256(made.from_log).hexdigest()
    counts: dict[str, int | float | str] = {
        "clicks": count,
        "of these late, after their day was closed": late,
        f"batches in {seconds:.2f} s": batches,
        "events": events,
        f"duplicates dropped ({twice:,} clicks came twice)": dropped,
        f"clicks of {day}, rebuilt from the log": made.from_log.count(b"\n"),
        "  sha256 of that table": digest[:10],
    }
    data = {
        "clicks": count,
        "late": late,
        "batches": batches,
        "events": events,
        "seconds": round(seconds, 3),
        "duplicates_published": twice,
        "duplicates_dropped": dropped,
        "day": day.isoformat(),
        "sha256": digest,
        "is_same": made.is_same,
    }
    return DemoResult(
        title=TITLE,
        counts=counts,
        verdict=VERDICT,
        findings=wrong,
        look=_commands(settings, day.isoformat()),
        data=data,
    )


def _commands(settings: Settings, day: str) -> dict[str, str]:
    where = f"CHOREO_LOG={settings.log} CHOREO_STORE='{settings.store}' CHOREO_REGISTRY={settings.registry}"
    return {
        "that day once more, by the command": f"{where} python -m services.lake.replay --day {day}",
        "who reacts to what, read from the services' own code": "choreo graph services.lake",
        "the reports": f"sqlite3 {settings.store_of('lake-reports', None)[10:]} 'SELECT * FROM reports'",
    }
