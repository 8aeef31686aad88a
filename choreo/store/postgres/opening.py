"""Opening a PostgreSQL store: its schema, its migrations, its owner."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from choreo.errors import ConfigurationError, StoreOwnedError
from choreo.store.postgres.connection import Connection
from choreo.store.sql import load_migrations, load_queries

_PACKAGE = "choreo.store.postgres"
Q = {name: query.encode() for name, query in load_queries(_PACKAGE).items()}
"""The named queries."""


async def migrate(writer: Connection, store: str, schema: str, service: str, tables: str) -> str:
    """Bring the schema to this release's form, claim it and make the service's tables, in one transaction.

    Returns the constraints that are checked at the commit unless told otherwise, for SET CONSTRAINTS.

    Args:
        store: its address, for messages.

    Raises:
        ConfigurationError: the schema is of a newer choreo, or not for this user.
        StoreOwnedError: it belongs to another service.
    """
    await writer.run((b"BEGIN", None), (Q["schema_lock"], {"schema": schema}))
    if not await _rows(writer, "has_schema", schema=schema):
        await writer.run((sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_bytes(), None))
    if await _rows(writer, "current_schema") != [(schema,)]:  # or the tables would land in `public`
        raise ConfigurationError(
            f"the store {store} is not usable",
            why=f"the user may not use the schema {schema!r}",
            remedy="grant it USAGE and CREATE on the schema",
        )
    await writer.run((Q["make_migrations"], None))
    ((version,),) = await _rows(writer, "version")
    migrations = load_migrations(_PACKAGE)
    if version > migrations[-1].number:
        raise ConfigurationError(f"the store {store} was written by a newer choreo", remedy="upgrade this one")
    for migration in migrations[version:]:
        await writer.script(migration.sql)
        await writer.run((Q["migrated"], {"number": migration.number}))
    owners = await _rows(writer, "service")
    if not owners:
        await writer.run((Q["claim"], {"service": service}))
    elif owners[0][0] != service:
        raise StoreOwnedError(
            f"the schema {schema!r} of the store {store} belongs to service {owners[0][0]!r}, "
            f"so service {service!r} cannot use it",
            remedy=f"give {service!r} its own: ?schema=name in Service({service!r}, store=...) or CHOREO_STORE",
        )
    await writer.script(tables)
    ((deferred,),) = await _rows(writer, "deferred_constraints")
    await writer.run((b"COMMIT", None))
    return deferred or ""


async def _rows(writer: Connection, query: str, **parameters: str) -> list[tuple[Any, ...]]:
    (cursor,) = await writer.run((Q[query], parameters))
    return await cursor.fetchall()
