"""Stores: a service's own durable state. `make_store` picks the adapter by the address."""

from __future__ import annotations

from choreo.errors import ConfigurationError
from choreo.store.port import (
    Behind,
    Database,
    Effects,
    NewNote,
    Note,
    OutboxRow,
    Park,
    Progress,
    Row,
    Store,
    Takeover,
    Timer,
)

__all__ = [
    "Behind", "Database", "Effects", "NewNote", "Note", "OutboxRow", "Park", "Progress", "Row", "Store", "Takeover", "Timer",
    "make_store",
]  # fmt: skip


def make_store(url: str) -> Store:
    """The store at `url`, not yet open.

    Args:
        url: `sqlite:///path/to/file.db` (relative), `sqlite:////absolute/path.db` or
            `postgresql://user:password@host:port/database[?schema=name]`.

    Raises:
        ConfigurationError: no adapter knows this address, or what the adapter needs is not installed.
    """
    kind = url.partition("://")[0]
    if kind == "sqlite":
        from choreo.store.sqlite.store import SqliteStore

        return SqliteStore.at(url)
    if kind in {"postgresql", "postgres"}:
        try:
            from choreo.store.postgres.store import PostgresStore
        except ImportError as error:
            raise ConfigurationError(
                "a PostgreSQL store needs psycopg", why=str(error), remedy="pip install 'choreo[postgres]'"
            ) from error
        return PostgresStore.at(url)
    raise ConfigurationError(
        f"the store {kind}:// is none choreo knows",
        remedy="use sqlite:///path/to/file.db or postgresql://user@host/database (CHOREO_STORE, or Service(store=...))",
    )
