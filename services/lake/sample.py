"""Some days of clicks and nightly tables to try the lake with, and what must come of them: the same seed, the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

from choreo import Bus, Settings, connect
from choreo.log import Log
from choreo.runtime.clock import SystemClock
from choreo.wire.ids import new_event_id
from services.books import differences, rows
from services.lake.events import Clicked, DeliveryBegun, Page, PagesDelivered

PAGES = tuple(Page(page=f"/{section}/{number}", section=section) for section in ("news", "shop") for number in range(9))
PARTS = 3
LATE_SHARE = 0.05
_AT_ONCE = 50


@dataclass(frozen=True)
class Sample:
    """Clicks in the order in which they are published, each with the moment at which it is."""

    days: tuple[date, ...]
    clicks: tuple[tuple[datetime, Clicked], ...]


class _Then(SystemClock):
    """The clock of a program that published at some moment of the past."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def now_ms(self) -> int:
        return round(self.moment.timestamp() * 1000)


def sample(seed: int, number: int, *, last: date, days: int = 3) -> Sample:
    """`number` clicks drawn from `seed`, on so many days; some come on the day after, when theirs is closed."""
    draw, named = Random(seed), [last - timedelta(days=days - 1 - place) for place in range(days)]  # noqa: S311
    made = []
    for place in range(number):
        day = draw.choice(named)
        at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(microseconds=draw.randrange(86_400_000_000))
        late = timedelta(hours=30) if draw.random() < LATE_SHARE else timedelta(seconds=1)
        page = draw.choice(PAGES).page
        click = Clicked(click_id=f"c-{seed}-{place:06}", visitor=f"v-{draw.randrange(200)}", page=page, at=at)
        made.append((at + late, click))
    return Sample(tuple(named), tuple(sorted(made, key=lambda each: each[0])))


async def publish(settings: Settings, log: Log, given: Sample, *, duplicates: float = 0.0, seed: int = 0) -> int:
    """Publish the clicks of all days and, two hours after each, its nightly table; returns how many clicks came twice.

    The clicks have the times of those days. The tables have that of now: their deadline counts from it.
    """
    draw, clock, twice = Random(seed), _Then(), 0  # noqa: S311
    nights = {night_of(day): day for day in given.days}
    async with Bus(settings, "shop", log, clock=clock) as bus, connect(settings, source="nightly", log=log) as nightly:
        for moment, clicks in _together(given.clicks, sorted(nights)):
            clock.moment = min(moment, datetime.now(UTC))  # Kafka takes no record of the future
            if moment in nights:
                await _deliver(nightly, nights[moment])
            for click in clicks:
                again, event_id = draw.random() < duplicates, new_event_id()
                twice += again
                for _ in range(1 + again):
                    await bus.publish(click, event_id=event_id)
    return twice


def night_of(day: date) -> datetime:
    """When a day's nightly table comes."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, hours=2)


def _together(
    clicks: Sequence[tuple[datetime, Clicked]], nights: Sequence[datetime]
) -> Iterator[tuple[datetime, list[Clicked]]]:
    """The clicks in groups, each with the moment of its last; and the nights between them."""
    left, group = list(nights), list[Clicked]()
    for moment, click in clicks:
        while left and left[0] <= moment:
            yield left[0], group
            left, group = left[1:], []
        group.append(click)
        if len(group) == _AT_ONCE:
            yield moment, group
            group = []
    for night in left or [clicks[-1][0]]:
        yield night, group
        group = []


async def _deliver(bus: Bus, day: date) -> None:
    saga = await bus.publish(DeliveryBegun(day=day.isoformat(), parts=PARTS))
    for part in range(PARTS):
        delivered = PagesDelivered(day=day.isoformat(), part=part, pages=PAGES[part::PARTS])
        await bus.publish(delivered, correlation_id=saga)


def findings(stores: str, given: Sample) -> list[str]:
    """What the stores hold that is not as it must be once everything is loaded, one sentence each."""
    expected = Counter(f"{click.at:%Y-%m-%d}" for _, click in given.clicks)
    clicks = Counter(dict(rows(stores, "lake-loader", _BY_DAY)))
    twice = rows(stores, "lake-loader", "SELECT click_id FROM clicks GROUP BY click_id HAVING count(*) > 1 LIMIT 5")
    pages = dict(rows(stores, "lake-loader", "SELECT day, count(*) FROM pages GROUP BY day"))
    reported = dict(rows(stores, "lake-reports", "SELECT day, clicks FROM reports"))
    return [
        *differences("clicks of", clicks, expected),
        *(f"click {row[0]} is there more than once" for row in twice),
        *differences("pages of", pages, {day.isoformat(): len(PAGES) for day in given.days}),
        *differences("reported clicks of", reported, expected),
    ]


_BY_DAY = "SELECT day, count(*) FROM clicks GROUP BY day"
