"""What `choreo demo shop` does: all six services in this process, orders placed, waited for and audited."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import monotonic

from choreo import Settings, connect
from choreo.log import open_log
from choreo.runtime.run import running
from services.shop import services
from services.shop.audit import audit, ended, open_stores
from services.shop.model import Outcome, books_of
from services.shop.orders_generator import orders as sample
from services.shop.trial import begin, ends_of, place, settle, unless_failed


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a demo.

    Attributes:
        cancelled: how many orders were cancelled, by cause; in all `cancelled_total`.
        events: how many records the demo added to the log, dead letters and duplicates included.
        seconds: from the first order published until the last book was right.
        duplicates_published: how many orders came twice under one event id.
        duplicates_dropped: how often a service knew an event already.
        findings: what the audit found wrong, in words.
    """

    log: str
    stores: str
    started: int
    confirmed: int
    cancelled: dict[str, int]
    cancelled_total: int
    open: int
    events: int
    seconds: float
    events_per_second: int
    duplicates_published: int
    duplicates_dropped: int
    findings: list[str]


async def run(settings: Settings, *, orders: int, seed: int, duplicates: float) -> Result:
    """Run the shop on the log of these settings, in fresh stores, until every order has ended.

    Args:
        orders: how many to place, drawn from `seed`.
        duplicates: the share of them to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    placed = sample(seed, orders)
    books = books_of(placed)
    async with open_log(settings.log, settings.kafka) as log:
        since = await begin(services, settings, log)
        async with running(services, settings, log=log) as instances, connect(settings, source="demo", log=log) as bus:
            start = monotonic()
            twice = await place(bus, placed, duplicates=duplicates, seed=seed)
            settling = settle(services, log, stores=settings.store, books=books, since=since)
            verdict = await unless_failed(settling, instances.values())
        events = sum((await ends_of(services, log)).values()) - sum(since.values())
    with open_stores(settings.store) as stores:
        outcomes = Counter(ended(stores).values())
        findings = verdict.findings or audit(stores, books)  # once more, now that everything has stopped
    seconds = verdict.at - start
    cancelled = {str(outcome): outcomes[outcome] for outcome in Outcome if outcome is not Outcome.CONFIRMED}
    return Result(
        log=settings.log,
        stores=settings.store,
        started=orders,
        confirmed=outcomes[Outcome.CONFIRMED],
        cancelled=cancelled,
        cancelled_total=sum(cancelled.values()),
        open=orders - outcomes[Outcome.CONFIRMED] - sum(cancelled.values()),
        events=events,
        seconds=round(seconds, 3),
        events_per_second=round(events / seconds),
        duplicates_published=twice,
        duplicates_dropped=sum(instance.stats.duplicates for instance in instances.values()),
        findings=findings,
    )
