"""The tracker's own store. `make_tracker_store` picks the adapter by the address."""

from __future__ import annotations

from choreo.errors import ConfigurationError
from choreo.saga.store.port import (
    Commit,
    Count,
    Folded,
    Page,
    Place,
    Sightings,
    Summary,
    TrackerStore,
    Wait,
)

__all__ = [
    "Commit", "Count", "Folded", "Page", "Place", "Sightings", "Summary", "TrackerStore", "Wait", "make_tracker_store",
]  # fmt: skip


def make_tracker_store(url: str) -> TrackerStore:
    """The tracker's store at `url`, not yet open.

    Args:
        url: `sqlite:///path/to/file.db` or `postgresql://user:password@host:port/database[?schema=name]`.

    Raises:
        ConfigurationError: no adapter knows this address, or what the adapter needs is not installed.
    """
    kind = url.partition("://")[0]
    if kind == "sqlite":
        from choreo.saga.store.sqlite.store import SqliteTrackerStore

        return SqliteTrackerStore.at(url)
    if kind in {"postgresql", "postgres"}:
        try:
            from choreo.saga.store.postgres.store import PostgresTrackerStore
        except ImportError as error:
            raise ConfigurationError(
                "a PostgreSQL store needs psycopg", why=str(error), remedy="pip install 'choreo[postgres]'"
            ) from error
        return PostgresTrackerStore.at(url)
    raise ConfigurationError(
        f"the tracker's store {kind}:// is none choreo knows",
        remedy="set CHOREO_TRACKER_STORE to sqlite:///path/to/file.db or postgresql://user@host/database",
    )
