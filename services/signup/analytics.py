"""Analytics: counts what happens. A leaf: nobody waits for it."""

from __future__ import annotations

from choreo import Context, Service
from services.signup.events import GreetingSent, ProfileCreated, UserRegistered

analytics = Service("signup-analytics", tables="CREATE TABLE IF NOT EXISTS counts (what TEXT PRIMARY KEY, n INTEGER)")


@analytics.on(UserRegistered, GreetingSent, ProfileCreated)
async def count(event: UserRegistered | GreetingSent | ProfileCreated, ctx: Context) -> None:
    """Count it by its kind."""
    await ctx.db.execute(
        "INSERT INTO counts VALUES ($1, 1) ON CONFLICT (what) DO UPDATE SET n = counts.n + 1",
        (event.contract.type_name,),
    )
