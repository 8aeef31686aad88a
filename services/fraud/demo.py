"""What `choreo demo fraud` does: transactions flow, the model goes away for a while, and every one gets its verdict."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic

from choreo import Settings
from services.demo import DemoResult
from services.evidence import Seen, events
from services.fraud import services
from services.fraud.audit import expected, findings, log_findings
from services.fraud.model import DEFAULT, Model
from services.fraud.sample import transactions
from services.trial import staged

TOPICS = ("fraud.transactions", "fraud.scores", "fraud.verdicts")
_AWAY = 1.0
"""Seconds without a model."""


async def run(settings: Settings, *, count: int = 2000, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Publish transactions, half of them while there is no model, and wait until each has its verdict.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    made = transactions(seed, count)
    wanted = expected(made, Model(DEFAULT))
    look = partial(findings, settings.store, wanted)
    cases = Path(settings.store_of("fraud-cases", None)[10:])
    with own_model(cases.with_name("model.json")) as model:
        async with staged(services, settings) as stage:
            start = monotonic()
            twice = await stage.publish(made[: count // 2], duplicates=duplicates, seed=seed)
            with away(model):
                twice += await stage.publish(made[count // 2 :], duplicates=duplicates, seed=seed)
                await asyncio.sleep(_AWAY)
            verdict = await stage.settle(look)
            seen = await events(stage.log, settings, TOPICS, stage.since)
            letters = sum(instance.stats.dead_letters for instance in stage.instances.values())
            dropped, grown = stage.duplicates_dropped, await stage.grown()
    seconds = verdict.at - start
    given = Counter(each.metadata.type_name for each in seen if each.at.topic == "fraud.verdicts")
    return DemoResult(
        title="Fraud: every transaction is scored, and approved, flagged or blocked",
        counts={
            "transactions": count,
            **{f"  {name.removeprefix('Transaction').lower()}": number for name, number in sorted(given.items())},
            "dropped because the model was away": letters,
            "the longest wait for a verdict, in seconds": f"{longest_wait(seen):.1f}",
            f"events in {seconds:.2f} s": grown,
            f"duplicates dropped ({twice:,} transactions came twice)": dropped,
        },
        verdict="Every transaction has one verdict, and each card's are in their order. Those without a model waited.",
        findings=verdict.findings or [*look(), *log_findings(seen, wanted)],
        look={
            "the events as they lie in the log": f"choreo topics tail fraud.verdicts --log {settings.log}",
            "who reacts to what, read from the services' own code": "choreo graph services.fraud",
            "what analysts look at": f"sqlite3 {cases} 'SELECT * FROM cases LIMIT 5'",
        },
        data={
            "started": count,
            "verdicts": dict(given),
            "dead_letters": letters,
            "events": grown,
            "seconds": round(seconds, 3),
            "duplicates_published": twice,
            "duplicates_dropped": dropped,
        },
    )


@contextmanager
def own_model(path: Path) -> Iterator[Path]:
    """A copy of the model, for the services that begin inside this block."""
    shutil.copy(DEFAULT, path)
    before = os.environ.get("FRAUD_MODEL", str(DEFAULT))
    os.environ["FRAUD_MODEL"] = str(path)
    try:
        yield path
    finally:
        os.environ["FRAUD_MODEL"] = before


@contextmanager
def away(model: Path) -> Iterator[None]:
    """There is no model while this block runs."""
    hidden = model.with_suffix(".away")
    model.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(model)


def longest_wait(seen: Sequence[Seen]) -> float:
    """Seconds from a transaction to its verdict, by the clocks of who published them."""
    times = {
        at: {each.metadata.correlation_id: each.metadata.time for each in seen if each.at.topic == at} for at in TOPICS
    }
    began, ended = times["fraud.transactions"], times["fraud.verdicts"]
    waits = (datetime.fromisoformat(ended[saga]) - datetime.fromisoformat(began[saga]) for saga in ended)
    return max((wait.total_seconds() for wait in waits), default=0.0)
