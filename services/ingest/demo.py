"""What `choreo demo ingest` does: tenants' files, good, large and malformed, are loaded or leave nothing behind."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic

from choreo import Settings
from services.demo import DemoResult
from services.ingest import services
from services.ingest.sample import Kind, findings, samples
from services.trial import staged

TITLE = "The ingestion: files of many tenants, and a heavy one that keeps nobody waiting"
VERDICT = "Every row and cent of a good file is loaded once and in order, and nothing of a malformed one."


async def run(settings: Settings, *, count: int = 80, seed: int = 7, duplicates: float = 0.1) -> DemoResult:
    """Run the ingestion on the log of these settings, in fresh stores, until every file is loaded or rejected.

    Args:
        count: how many files arrive, drawn from `seed`.
        duplicates: the share of arrivals to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    with tempfile.TemporaryDirectory(prefix="choreo-ingest-") as folder:
        chosen = samples(seed, count, Path(folder))
        async with staged(services, settings) as stage:
            start, twice = monotonic(), 0
            for sample in chosen:  # one after the other: a tenant's files have an order
                twice += await stage.publish([sample.arrived], duplicates=duplicates, seed=sample.rows)
            verdict = await stage.settle(partial(findings, settings.store, chosen))
            events, dropped = await stage.grown(), stage.duplicates_dropped
    wrong = verdict.findings or findings(settings.store, chosen)  # once more, now that everything has stopped
    kinds = Counter(str(sample.kind) for sample in chosen)
    loaded, seconds = sum(sample.rows for sample in chosen if sample.is_good), verdict.at - start
    counts = {
        "files arrived": count,
        **{f"  {kind}": kinds[kind] for kind in Kind},
        f"rows loaded in {seconds:.2f} s": loaded,
        "events": events,
        f"duplicates dropped ({twice:,} arrivals came twice)": dropped,
    }
    data = {
        "arrived": count,
        "kinds": kinds,
        "rows": loaded,
        "events": events,
        "seconds": round(seconds, 3),
        "duplicates_published": twice,
        "duplicates_dropped": dropped,
    }
    return DemoResult(title=TITLE, counts=counts, verdict=VERDICT, findings=wrong, look=_commands(settings), data=data)


def _commands(settings: Settings) -> dict[str, str]:
    by_tenant = "SELECT tenant, count(*), sum(cents) FROM sales GROUP BY tenant"
    return {
        "what went to the pool for large files": f"choreo topics tail ingest.files.large --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.ingest",
        "what each tenant has sold": f"sqlite3 {settings.store_of('ingest-load', None)[10:]} '{by_tenant}'",
    }
