"""What `choreo demo shop` does: all six services in this process, orders placed, waited for and audited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic

from choreo import Settings
from choreo.choreography import dead_letter_topic
from services.demo import DemoResult
from services.shop import services
from services.shop.audit import audit, audit_letters, ended, findings_now, open_stores
from services.shop.events import OrderPlaced
from services.shop.model import Outcome, books_of
from services.shop.orders_generator import order_without_points, orders
from services.trial import Stage, ends_of, staged

TITLE = "The shop: six independent services, and nobody in charge"
VERDICT = "Every cent, piece, parcel, message and point is where it must be."


async def run(settings: Settings, *, count: int = 200, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Run the shop on the log of these settings, in fresh stores, until every order has ended.

    Args:
        count: how many orders to place, drawn from `seed`; the last one ends in a dead letter.
        duplicates: the share of them to publish twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    placed = sample(seed, count)
    books = books_of(placed)
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await stage.publish(placed, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(partial(findings_now, settings.store, books))
        events, dropped = await stage.grown(), stage.duplicates_dropped
        letters = await _dead_letters(stage)
    with open_stores(settings.store) as stores:
        found = ended(stores)
        findings = verdict.findings or [
            *audit(stores, books),
            *audit_letters(letters, placed),
        ]  # now that everything has stopped
    outcomes = Counter(found.values())
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
        "dead_letters": letters,
    }
    counts = {
        "orders started": count,
        "confirmed": confirmed,
        "cancelled, everything undone": undone,
        **{f"  {cause}": number for cause, number in cancelled.items()},
        "still open": still_open,
        "dead letters: points that nobody can book": sum(letters.values()),
        f"events in {seconds:.2f} s": events,
        "events a second": rate,
        f"duplicates dropped ({twice:,} orders came twice)": dropped,
    }
    look, sagas = _commands(settings), _worth_seeing(placed, found)
    return DemoResult(title=TITLE, counts=counts, verdict=VERDICT, findings=findings, look=look, sagas=sagas, data=data)


def sample(seed: int, count: int) -> list[OrderPlaced]:
    """The orders of the demo: drawn from `seed`, but for the last one, which ends in a dead letter."""
    *drawn, last = orders(seed, count)
    return [*drawn, order_without_points(last.order_id)]


async def _dead_letters(stage: Stage) -> dict[str, int]:
    """How many dead letters each service has written."""
    ends = await ends_of(stage.services, stage.log)
    grown = {service.name: 0 for service in stage.services}
    for at, end in ends.items():
        if at.topic.startswith(dead_letter_topic("")):
            grown[at.topic.removeprefix(dead_letter_topic(""))] += end - stage.since[at]
    return grown


def _worth_seeing(placed: Sequence[OrderPlaced], found: Mapping[str, Outcome | None]) -> list[str]:
    """An order that was confirmed, one that was cancelled when most was done, and the one with a dead letter."""
    *drawn, last = [order.order_id for order in placed]
    wanted = ((Outcome.CONFIRMED,), (Outcome.REJECTED, Outcome.UNAVAILABLE, Outcome.DECLINED))
    first = [next((key for kind in kinds for key in drawn if found.get(key) is kind), None) for kinds in wanted]
    return [*filter(None, first), last]


def _commands(settings: Settings) -> dict[str, str]:
    return {
        "the events as they lie in the log": f"choreo topics tail orders --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.shop",
        "a service's own books": f"sqlite3 {settings.store_of('orders', None)[10:]} 'SELECT * FROM outcomes LIMIT 5'",
    }
