"""Reports: how many clicks a day had, corrected whenever late ones come. Keeps its own books, and reads no one's tables."""

from __future__ import annotations

from choreo import Context, Service
from services.lake.events import DayClosed, DeliveryMissed, LateClicksLoaded

TABLES = """
CREATE TABLE IF NOT EXISTS reports (
    day TEXT PRIMARY KEY,
    clicks INTEGER NOT NULL,
    late INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS missing (day TEXT NOT NULL);
"""

reports = Service("lake-reports", tables=TABLES)


@reports.on(DayClosed, LateClicksLoaded)
async def report(told: DayClosed | LateClicksLoaded, ctx: Context) -> None:
    """Write or correct a day's report; the correction may come first."""
    late = told.clicks if isinstance(told, LateClicksLoaded) else 0
    await ctx.db.execute(
        """
        INSERT INTO reports VALUES ($1, $2, $3, 1)
        ON CONFLICT (day) DO UPDATE SET
            clicks = reports.clicks + excluded.clicks,
            late = reports.late + excluded.late,
            revision = reports.revision + 1
        """,
        (told.day, told.clicks, late),
    )


@reports.on(DeliveryMissed)
async def warn(missed: DeliveryMissed, ctx: Context) -> None:
    """Note that a day has no report."""
    await ctx.db.execute("INSERT INTO missing VALUES ($1)", (missed.day,))
