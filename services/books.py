"""What the services of a flow keep in their stores, beside what must be there. For demos and tests, which use SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)

_SHOWN = 5


def rows(stores: str, service: str, sql: str) -> list[tuple[Any, ...]]:
    """What a query finds in a service's store; nothing, as long as the service has not made it.

    Args:
        stores: the stores' address, `sqlite:///folder/{service}.db`.
    """
    path = Path(stores.replace("{service}", service).removeprefix("sqlite:///").partition("?")[0]).absolute()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as store:
            return store.execute(sql).fetchall()
    except sqlite3.OperationalError:
        if path.exists():
            raise
        return []


def differences(what: str, found: Mapping[K, Any], expected: Mapping[K, Any]) -> list[str]:
    """A sentence for each key whose values differ; a long list is cut. Where there is no value, that is 0."""
    wrong = [key for key in {**expected, **found} if found.get(key, 0) != expected.get(key, 0)]
    said = [f"{what} {_words(key)}: {found.get(key, 0)}, expected {expected.get(key, 0)}" for key in wrong[:_SHOWN]]
    return said if len(wrong) <= _SHOWN else [*said, f"{what}: {len(wrong) - _SHOWN} more are wrong"]


def _words(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
