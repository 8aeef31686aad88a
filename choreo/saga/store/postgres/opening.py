"""Opening the schema of the tracker's PostgreSQL store."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from psycopg import sql

from choreo.errors import ConfigurationError, StoreMissingError
from choreo.saga.store.postgres.writing import PACKAGE, Q
from choreo.store.postgres.connection import Connection
from choreo.store.sql import load_migrations


async def migrate(writer: Connection, store: str, schema: str) -> None:
    """Make the schema, and bring it to this release's form, in one transaction.

    Raises:
        ConfigurationError: it is of a newer choreo, not for this user, or something else.
    """
    await writer.run((b"BEGIN", None), (Q["schema_lock"], [schema]))
    if not await _rows(writer, "has_schema", schema):
        await writer.run((sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_bytes(), None))
    if await _rows(writer, "current_schema") != [(schema,)]:  # or the tables would land in `public`
        raise ConfigurationError(
            f"the tracker's store {store} is not usable",
            why=f"the user may not use the schema {schema!r}",
            remedy="grant it USAGE and CREATE on the schema",
        )
    await _check(writer, store, schema)
    await writer.run((Q["make_migrations"], None))
    ((version,),) = await _rows(writer, "version")
    migrations = load_migrations(PACKAGE)
    if version > migrations[-1].number:
        raise ConfigurationError(
            f"the tracker's store {store} was written by a newer choreo", remedy="upgrade this one"
        )
    for migration in migrations[version:]:
        await writer.script(migration.sql)
        await writer.run((Q["migrated"], [migration.number]))
    await writer.run((Q["be_born"], [uuid4().hex]))
    await writer.run((b"COMMIT", None))


async def _check(connection: Connection, store: str, schema: str) -> None:
    """That a schema is a tracker's, or empty.

    Raises:
        ConfigurationError: it is something else.
    """
    ((tables, ours),) = await _rows(connection, "tables", schema)
    if tables and not ours:
        raise ConfigurationError(
            f"the schema {schema!r} of {store} is no tracker's store",
            remedy="give the tracker one of its own: ?schema=name in CHOREO_TRACKER_STORE",
        )


async def drop(writer: Connection, schema: str) -> None:
    """Remove a store, if it is there."""
    await writer.run((sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)).as_bytes(), None))


async def replace(writer: Connection, store: str, schema: str, rebuilt: str) -> None:
    """Put a store in another one's place: names change hands at once, and whoever is in a transaction ends it first."""
    await _check(writer, store, schema)
    old = f"{schema[:50]}_replaced"
    await drop(writer, old)
    rename = "ALTER SCHEMA {} RENAME TO {}"
    moves = [(rebuilt, schema)]
    if await _rows(writer, "has_schema", schema):
        moves.insert(0, (schema, old))
    statements = [sql.SQL(rename).format(*map(sql.Identifier, move)).as_bytes() for move in moves]
    await writer.script("; ".join(["BEGIN", *(text.decode() for text in statements), "COMMIT"]))
    await drop(writer, old)


async def check(reader: Connection, store: str, schema: str) -> None:
    """That there is a store to ask.

    Raises:
        ConfigurationError: there is none.
    """
    if not await _rows(reader, "has_schema", schema):
        raise StoreMissingError(
            f"there is no tracker's store in schema {schema!r} of {store}",
            remedy="let the tracker make it: choreo tracker run MODULE",
        )
    await _check(reader, store, schema)


async def _rows(connection: Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    (cursor,) = await connection.run((Q[query], list(values) or None))
    return await cursor.fetchall()
