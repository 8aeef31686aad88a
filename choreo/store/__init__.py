"""Stores: a service's own durable state. `make_store` picks the adapter by the address."""

from __future__ import annotations

from choreo.errors import ConfigurationError
from choreo.store.port import Database, Effects, OutboxRow, Progress, Row, Store

__all__ = ["Database", "Effects", "OutboxRow", "Progress", "Row", "Store", "make_store"]


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
