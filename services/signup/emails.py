"""E-mail: greets who has signed up."""

from __future__ import annotations

from choreo import Context, Service
from services.signup.events import GreetingSent, UserRegistered

emails = Service("signup-emails", tables="CREATE TABLE IF NOT EXISTS outgoing (email TEXT, text TEXT)")


@emails.on(UserRegistered)
async def greet(user: UserRegistered, ctx: Context) -> GreetingSent:
    """Queue the greeting for the mailer."""
    await ctx.db.execute("INSERT INTO outgoing VALUES ($1, $2)", (user.email, f"Welcome, {user.name}!"))
    return GreetingSent(user_id=user.user_id, email=user.email)
