"""Databases: makes one for each account, and drops that of an account that is closed.

A database is a table of this service's own store here: SQLite and PostgreSQL make and drop tables in the same transaction
as everything else that a handler does, so that none is left over, whenever a process dies.
"""

from __future__ import annotations

from hashlib import sha256

from choreo import Context, Service
from services.onboarding.events import AccountClosed, AccountRequested, DatabaseDropped, DatabaseProvisioned

TABLES = "CREATE TABLE IF NOT EXISTS dropped_databases (name TEXT NOT NULL, because TEXT NOT NULL);"

databases = Service("onboarding-databases", tables=TABLES)


def database_of(account_id: str) -> str:
    """The name of an account's database: the same each time, and fit for SQL whatever the id is."""
    return f"documents_{sha256(account_id.encode()).hexdigest()[:16]}"


@databases.on(AccountRequested)
async def provision(requested: AccountRequested, ctx: Context) -> DatabaseProvisioned:
    """Make the database."""
    name = database_of(requested.account_id)
    await ctx.db.execute(f"CREATE TABLE {name} (title TEXT NOT NULL, content TEXT NOT NULL)")
    return DatabaseProvisioned(account_id=requested.account_id, database=name)


@databases.compensates(provision, on=(AccountClosed,))
async def drop(provisioned: DatabaseProvisioned, closed: AccountClosed, ctx: Context) -> DatabaseDropped:
    """Drop it."""
    name = database_of(provisioned.account_id)
    await ctx.db.execute(f"DROP TABLE {name}")
    await ctx.db.execute("INSERT INTO dropped_databases VALUES ($1, $2)", (name, closed.because))
    return DatabaseDropped(account_id=provisioned.account_id, database=name)
