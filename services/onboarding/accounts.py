"""Accounts: waits for a person, reminds, gives up at last, and ends each account exactly once.

Whoever comes first decides: the table `outcomes` has one row an account, and only the insert that makes it counts. So a
verification that comes while the account is being closed changes nothing, and says so.
"""

from __future__ import annotations

from choreo import Context, Service
from services.onboarding.events import (
    AccountActivated,
    AccountClosed,
    AccountRequested,
    AccountVerified,
    ClosedBecause,
    TenantRefused,
    VerificationRefused,
    VerificationReminded,
    WelcomeSent,
)

TABLES = "CREATE TABLE IF NOT EXISTS outcomes (account_id TEXT PRIMARY KEY, outcome TEXT NOT NULL);"

accounts = Service("onboarding-accounts", tables=TABLES)


@accounts.join(WelcomeSent, AccountVerified)
async def activate(
    welcomed: WelcomeSent, verified: AccountVerified, ctx: Context
) -> AccountActivated | VerificationRefused:
    """Let the account be used, unless it was closed before."""
    if await _is_ended_now(verified.account_id, "active", ctx):
        return AccountActivated(account_id=welcomed.account_id, administrator=verified.administrator)
    return VerificationRefused(
        account_id=verified.account_id, administrator=verified.administrator, reason="the account is closed"
    )


@accounts.deadline(WelcomeSent, within="1d", every="2d", times=2, unless=(AccountVerified, AccountClosed))
async def remind(welcomed: WelcomeSent) -> VerificationReminded:
    """After one day and after three: nobody has looked yet."""
    return VerificationReminded(account_id=welcomed.account_id, email=welcomed.email, company=welcomed.company)


@accounts.deadline(WelcomeSent, within="14d", unless=(AccountVerified, AccountClosed))
async def give_up(welcomed: WelcomeSent, ctx: Context) -> AccountClosed | None:
    """After two weeks: nobody is going to look."""
    return await _close(welcomed.account_id, ClosedBecause.NOT_VERIFIED, ctx)


@accounts.deadline(AccountRequested, within="28d", unless=(AccountActivated, AccountClosed))
async def abandon(requested: AccountRequested, ctx: Context) -> AccountClosed | None:
    """After four weeks, whatever it is that has not come: while all others still know what they have to undo."""
    return await _close(requested.account_id, ClosedBecause.NOT_READY, ctx)


@accounts.on(TenantRefused)
async def close(refused: TenantRefused, ctx: Context) -> AccountClosed | None:
    """Without a name there is no account."""
    return await _close(refused.account_id, ClosedBecause.NAME_REFUSED, ctx)


async def _close(account_id: str, because: ClosedBecause, ctx: Context) -> AccountClosed | None:
    if not await _is_ended_now(account_id, because, ctx):
        return None
    return AccountClosed(account_id=account_id, because=because)


async def _is_ended_now(account_id: str, outcome: str, ctx: Context) -> bool:
    """Whether the account was open, and is ended with this."""
    made = await ctx.db.execute("INSERT INTO outcomes VALUES ($1, $2) ON CONFLICT DO NOTHING", (account_id, outcome))
    return made == 1
