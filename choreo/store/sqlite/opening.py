"""Opening the file of a SQLite store: its settings, its migrations, its owner."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from choreo.errors import ConfigurationError, StoreOwnedError
from choreo.store.sql import load_migrations, load_queries

_PACKAGE = "choreo.store.sqlite"
_Q = load_queries(_PACKAGE)
_LOG_APPLICATION_ID = 0x63686C67
"""Marks the file of an embedded log, which shares its write lock with nobody."""


def prepare(connection: sqlite3.Connection, path: Path, synchronous: str) -> None:
    """Make a new connection one of a store: write-ahead log, and how hard a commit is pressed to the disk."""
    deadline = time.monotonic() + 10
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:  # SQLite does not wait here when two processes make the file
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise ConfigurationError(
            f"the store {path} cannot be shared",
            why="its file system allows no write-ahead log",
            remedy="put it on a local disk",
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def migrate(writer: sqlite3.Connection, path: Path, service: str, tables: str) -> None:
    """Bring the file to this release's schema and claim it for the service, inside the open transaction.

    Raises:
        ConfigurationError: the file is a log's, or of a newer choreo.
        StoreOwnedError: it belongs to another service.
    """
    if writer.execute("PRAGMA application_id").fetchone()[0] == _LOG_APPLICATION_ID:
        raise ConfigurationError(
            f"the store {path} is the file of a log", remedy="give the store a file of its own: CHOREO_STORE"
        )
    writer.execute(_Q["make_migrations"])
    version = writer.execute(_Q["version"]).fetchone()[0]
    migrations = load_migrations(_PACKAGE)
    if version > migrations[-1].number:
        raise ConfigurationError(f"the store {path} was written by a newer choreo", remedy="upgrade this one")
    for migration in migrations[version:]:
        for statement in statements(migration.sql):
            writer.execute(statement)
        writer.execute(_Q["migrated"], (migration.number,))
    owner = writer.execute(_Q["service"]).fetchone()
    if owner is not None and owner[0] != service:
        raise StoreOwnedError(
            f"the store {path} belongs to service {owner[0]!r}, so service {service!r} cannot use it",
            remedy=f"give {service!r} its own: Service({service!r}, store=...) or CHOREO_STORE with {{service}} in it",
        )
    if owner is None:
        writer.execute(_Q["claim"], (service,))
    for statement in statements(tables):
        writer.execute(statement)


def statements(script: str) -> list[str]:
    """A script's statements one by one: `executescript` would commit the transaction they belong to."""
    statements, current = [], ""
    for part in f"{script}\n".split(";"):  # the last one may end in a comment
        current += f"{part};"
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
