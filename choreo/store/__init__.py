"""Stores: a service's own durable state. `make_store` picks the adapter by the address."""

from __future__ import annotations

from choreo.errors import ConfigurationError
from choreo.store.port import Behind, Database, Effects, OutboxRow, Park, Progress, Row, Store, Takeover

__all__ = [
    "Behind", "Database", "Effects", "OutboxRow", "Park", "Progress", "Row", "Store", "Takeover", "make_store",
]  # fmt: skip


def make_store(url: str) -> Store:
    """The store at `url`, not yet open.

    Args:
        url: `sqlite:///path/to/file.db` (relative) or `sqlite:////absolute/path.db`.

    Raises:
        ConfigurationError: no adapter knows this address.
    """
    if url.partition("://")[0] == "sqlite":
        from choreo.store.sqlite.store import SqliteStore

        return SqliteStore.at(url)
    raise ConfigurationError(
        f"the store {url!r} is none choreo knows",
        remedy="use sqlite:///path/to/file.db (CHOREO_STORE, or Service(store=...))",
    )
