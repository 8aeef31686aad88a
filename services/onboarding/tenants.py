"""Tenants: gives each company its name, and takes it back from an account that is closed."""

from __future__ import annotations

import re

from choreo import Context, Service
from services.onboarding.events import AccountClosed, AccountRequested, TenantCreated, TenantDeleted, TenantRefused

TABLES = """
CREATE TABLE IF NOT EXISTS tenants (tenant TEXT PRIMARY KEY, account_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deleted_tenants (tenant TEXT NOT NULL, because TEXT NOT NULL);
"""

tenants = Service("onboarding-tenants", tables=TABLES)


def tenant_of(company: str) -> str:
    """The name of a company in addresses; empty if nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", company.lower()).strip("-")


@tenants.on(AccountRequested)
async def create(requested: AccountRequested, ctx: Context) -> TenantCreated | TenantRefused:
    """Take the name, unless another account has it."""
    tenant = tenant_of(requested.company)
    if not tenant:
        return TenantRefused(account_id=requested.account_id, reason=f"{requested.company!r} makes no name")
    taken = await ctx.db.execute(
        "INSERT INTO tenants VALUES ($1, $2) ON CONFLICT DO NOTHING", (tenant, requested.account_id)
    )
    if not taken:
        return TenantRefused(account_id=requested.account_id, reason=f"another account is called {tenant!r}")
    return TenantCreated(account_id=requested.account_id, tenant=tenant)


@tenants.compensates(create, on=(AccountClosed,))
async def delete(created: TenantCreated, closed: AccountClosed, ctx: Context) -> TenantDeleted:
    """Give the name back."""
    await ctx.db.execute("DELETE FROM tenants WHERE tenant = $1", (created.tenant,))
    await ctx.db.execute("INSERT INTO deleted_tenants VALUES ($1, $2)", (created.tenant, closed.because))
    return TenantDeleted(account_id=created.account_id, tenant=created.tenant)
