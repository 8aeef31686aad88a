"""Profiles: gives each user a page of their own."""

from __future__ import annotations

from choreo import Context, Service
from services.signup.events import ProfileCreated, UserRegistered

profiles = Service("signup-profiles", tables="CREATE TABLE IF NOT EXISTS profiles (user_id TEXT, handle TEXT)")


@profiles.on(UserRegistered)
async def create(user: UserRegistered, ctx: Context) -> ProfileCreated:
    """Create the page."""
    handle = user.name.lower().replace(" ", "-")
    await ctx.db.execute("INSERT INTO profiles VALUES ($1, $2)", (user.user_id, handle))
    return ProfileCreated(user_id=user.user_id, handle=handle)
