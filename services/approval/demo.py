"""What `choreo demo approval` does: purchases are requested, and answered by managers who are quick here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random
from time import monotonic

from choreo import Settings
from choreo.wire.ids import new_event_id
from services.approval import services
from services.approval.sample import Sample, Story, asked, findings, samples
from services.demo import DemoResult
from services.trial import AtWork, staged

TITLE = "The approval: purchases that wait for a person, and have one outcome"
VERDICT = (
    "Every purchase has one decision, by the first who was asked and answered, and what is approved is bought once."
)


async def run(settings: Settings, *, count: int = 60, seed: int = 7, duplicates: float = 0.1) -> DemoResult:
    """Run the approval on the log of these settings, in fresh stores, until every purchase has ended.

    Args:
        count: how many purchases are requested, drawn from `seed`.
        duplicates: the share of requests and answers to publish twice.

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
    stories = Counter(str(sample.story) for sample in chosen)
    seconds = verdict.at - start
    counts = {
        "purchases requested": count,
        **{f"  {story}"[:50]: stories[story] for story in Story},
        f"events in {seconds:.2f} s": events,
        f"duplicates dropped ({twice:,} events came twice)": dropped,
    }
    data = {
        "requested": count,
        "stories": stories,
        "events": events,
        "seconds": round(seconds, 3),
        "duplicates_published": twice,
        "duplicates_dropped": dropped,
    }
    return DemoResult(title=TITLE, counts=counts, verdict=VERDICT, findings=wrong, look=_commands(settings), data=data)


async def walk(stage: AtWork, chosen: Sequence[Sample], *, duplicates: float = 0.0, seed: int = 0) -> int:
    """Request the purchases, and answer whatever is asked; returns how many events came twice."""
    draw, repeated = Random(seed), 0  # noqa: S311 - a reproducible choice, no secret
    sagas: dict[str, str] = {}
    for sample in chosen:
        again = draw.random() < duplicates
        repeated += again
        saga = sagas[sample.requested.purchase_id] = new_event_id()
        for _ in range(1 + again):
            await stage.bus.publish(sample.requested, event_id=saga)
    await stage.settle(partial(_not_asked, stage.settings.store, chosen))
    for sample in chosen:
        for answer in sample.answers:
            again = draw.random() < duplicates
            repeated += again
            saga, event_id = sagas[answer.purchase_id], new_event_id()
            for _ in range(1 + again):
                await stage.bus.publish(answer, correlation_id=saga, event_id=event_id)
    return repeated


def _not_asked(stores: str, chosen: Sequence[Sample]) -> list[str]:
    missing = {sample.requested.purchase_id for sample in chosen if sample.answers} - asked(stores)
    return [f"nobody was asked about {len(missing)} purchases yet"] if missing else []


def _commands(settings: Settings) -> dict[str, str]:
    return {
        "who was asked what": f"choreo topics tail approval.requests --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.approval",
        "who has decided what": (
            f"sqlite3 {settings.store_of('approval-desk', None)[10:]} 'SELECT * FROM decisions LIMIT 5'"
        ),
    }
