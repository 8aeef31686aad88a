"""Mail: welcomes a company once everything is ready for it, reminds its administrator, and says how it ended.

The table is the queue that a mailer empties. A mailer that is called from here instead gets `ctx.idempotency_key`, so that
a handler run again does not send twice.
"""

from __future__ import annotations

from choreo import Context, Service
from services.onboarding.events import (
    AccountActivated,
    AccountClosed,
    AccountRequested,
    DatabaseProvisioned,
    TenantCreated,
    VerificationRefused,
    VerificationReminded,
    WelcomeSent,
)

TABLES = "CREATE TABLE IF NOT EXISTS mails (account_id TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL);"

mail = Service("onboarding-mail", tables=TABLES)


@mail.join(AccountRequested, TenantCreated, DatabaseProvisioned, unless=(AccountClosed,))
async def welcome(
    requested: AccountRequested, created: TenantCreated, provisioned: DatabaseProvisioned, ctx: Context
) -> WelcomeSent:
    """Say that everything is ready, and what comes next."""
    message = f"Welcome, {requested.company}! Your place is {created.tenant}, your database {provisioned.database}."
    await _queue(requested.account_id, "welcome", message, ctx)
    return WelcomeSent(account_id=requested.account_id, company=requested.company, email=requested.email)


@mail.on(VerificationReminded)
async def remind(reminded: VerificationReminded, ctx: Context) -> None:
    """Ask the administrators again."""
    await _queue(reminded.account_id, "reminder", f"{reminded.company} still waits to be verified.", ctx)


@mail.on(VerificationRefused)
async def tell_administrator(refused: VerificationRefused, ctx: Context) -> None:
    """Say why a verification has changed nothing."""
    await _queue(refused.account_id, "refused", f"{refused.administrator}, too late: {refused.reason}.", ctx)


@mail.on(AccountActivated, AccountClosed)
async def tell_end(ended: AccountActivated | AccountClosed, ctx: Context) -> None:
    """Tell the company how its onboarding ended."""
    if isinstance(ended, AccountActivated):
        await _queue(ended.account_id, "activated", "Your account is ready to use.", ctx)
    else:
        await _queue(ended.account_id, "closed", f"Your account was closed: {ended.because}.", ctx)


async def _queue(account_id: str, kind: str, message: str, ctx: Context) -> None:
    await ctx.db.execute("INSERT INTO mails VALUES ($1, $2, $3)", (account_id, kind, message))
