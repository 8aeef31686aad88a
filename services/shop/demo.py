"""What `choreo demo shop` does: all six services in this process, orders placed, waited for and audited."""

from __future__ import annotations

from collections import Counter
from functools import partial
from time import monotonic

from choreo import Settings
from services.demo import DemoResult
from services.shop import services
from services.shop.audit import audit, ended, findings_now, open_stores
from services.shop.model import Outcome, books_of
from services.shop.orders_generator import orders
from services.trial import staged

TITLE = "The shop: six independent services, and nobody in charge"
VERDICT = "Every cent, piece, parcel, message and point is where it must be."


async def run(settings: Settings, *, count: int = 200, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Run the shop on the log of these settings, in fresh stores, until every order has ended.

    Args:
        count: how many orders to place, drawn from `seed`.
        duplicates: the share of them to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    placed = orders(seed, count)
    books = books_of(placed)
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await stage.publish(placed, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(partial(findings_now, settings.store, books))
        events, dropped = await stage.grown(), stage.duplicates_dropped
    with open_stores(settings.store) as stores:
        outcomes = Counter(ended(stores).values())
        findings = verdict.findings or audit(stores, books)  # once more, now that everything has stopped
    cancelled = {str(outcome): outcomes[outcome] for outcome in Outcome if outcome is not Outcome.CONFIRMED}
    seconds = verdict.at - start
    confirmed, undone = outcomes[Outcome.CONFIRMED], sum(cancelled.values())
    still_open, rate = count - confirmed - undone, round(events / seconds)
    data = {
        "started": count,
        "confirmed": confirmed,
        "cancelled": cancelled,
        "cancelled_total": undone,
        "open": still_open,
        "events": events,
        "seconds": round(seconds, 3),
        "events_per_second": rate,
        "duplicates_published": twice,
        "duplicates_dropped": dropped,
    }
    counts = {
        "orders started": count,
        "confirmed": confirmed,
        "cancelled, everything undone": undone,
        **{f"  {cause}": number for cause, number in cancelled.items()},
        "still open": still_open,
        f"events in {seconds:.2f} s": events,
        "events a second": rate,
        f"duplicates dropped ({twice:,} orders came twice)": dropped,
    }
    return DemoResult(
        title=TITLE, counts=counts, verdict=VERDICT, findings=findings, look=_commands(settings), data=data
    )


def _commands(settings: Settings) -> dict[str, str]:
    return {
        "the events as they lie in the log": f"choreo topics tail orders --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.shop",
        "a service's own books": f"sqlite3 {settings.store_of('orders', None)[10:]} 'SELECT * FROM outcomes LIMIT 5'",
    }
