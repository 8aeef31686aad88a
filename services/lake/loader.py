"""Loader: the boundary between the stream of clicks and the tables. Buffers the stream, and writes it in batches.

A batch, and that its events are done, are one transaction of the store: whenever the loader is killed, each click is in
the table once.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC

from choreo import BatchContext, Context, Service
from services.lake.events import (
    Clicked,
    DayClosed,
    DeliveryBegun,
    DeliveryMissed,
    LateClicksLoaded,
    PagesDelivered,
)

TABLES = """
CREATE TABLE IF NOT EXISTS clicks (
    day TEXT NOT NULL,
    at TEXT NOT NULL,
    click_id TEXT NOT NULL,
    visitor TEXT NOT NULL,
    page TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS clicks_by_day ON clicks (day);
CREATE TABLE IF NOT EXISTS pages (day TEXT NOT NULL, page TEXT NOT NULL, section TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, outcome TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (clicks INTEGER NOT NULL);
"""

loader = Service("lake-loader", tables=TABLES)

ClickRow = tuple[str, str, str, str, str]
"""Day, time, id, visitor and page of a click, as they stand in the table."""


def row_of(click: Clicked) -> ClickRow:
    """A click's row. A day is one of UTC, and a time has all its microseconds, so that text sorts as time does."""
    at = click.at.astimezone(UTC)
    return (f"{at:%Y-%m-%d}", f"{at:%Y-%m-%dT%H:%M:%S.%f}Z", click.click_id, click.visitor, click.page)


@loader.batch(Clicked, max_size=500, max_age="2s")
async def load(clicks: list[Clicked], ctx: BatchContext) -> list[LateClicksLoaded]:
    """Write the clicks, and tell for which days they came late."""
    rows = [row_of(click) for click in clicks]
    await ctx.db.execute_many("INSERT INTO clicks VALUES ($1, $2, $3, $4, $5)", rows)
    await ctx.db.execute("INSERT INTO batches VALUES ($1)", (len(rows),))
    closed = {row[0] for row in await ctx.db.fetch_all("SELECT day FROM days WHERE outcome = 'closed'")}
    late = Counter(day for day, *_ in rows if day in closed)
    return [LateClicksLoaded(day=day, clicks=number) for day, number in sorted(late.items())]


@loader.join(DeliveryBegun, PagesDelivered, count=lambda begun: begun.parts)
async def close(begun: DeliveryBegun, parts: list[PagesDelivered], ctx: Context) -> DayClosed | None:
    """Load the nightly table, once it is complete: all of it or nothing."""
    if not await _is_ended_now(begun.day, "closed", ctx):
        return None
    pages = [(begun.day, page.page, page.section) for part in parts for page in part.pages]
    await ctx.db.execute_many("INSERT INTO pages VALUES ($1, $2, $3)", pages)
    counted = await ctx.db.fetch_one("SELECT count(*) FROM clicks WHERE day = $1", (begun.day,))
    return DayClosed(day=begun.day, pages=len(pages), clicks=counted[0] if counted else 0)


@loader.deadline(DeliveryBegun, within="3h", unless=(DayClosed,))
async def miss(begun: DeliveryBegun, ctx: Context) -> DeliveryMissed | None:
    """Three hours, and a part is still missing: somebody has to look."""
    if not await _is_ended_now(begun.day, "missed", ctx):
        return None
    return DeliveryMissed(day=begun.day)


async def _is_ended_now(day: str, outcome: str, ctx: Context) -> bool:
    """Whether the day was open, and is ended with this."""
    return await ctx.db.execute("INSERT INTO days VALUES ($1, $2) ON CONFLICT DO NOTHING", (day, outcome)) == 1
