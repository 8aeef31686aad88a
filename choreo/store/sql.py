"""SQL kept in files: named queries and numbered migrations."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Migration(NamedTuple):
    """One step of a store's schema; steps are numbered from 1 and never changed once released."""

    number: int
    sql: str


def load_queries(package: str) -> dict[str, str]:
    """The queries of a package's `queries.sql` by name; each begins with a line `-- name: some_name`."""
    text = files(package).joinpath("queries.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def load_migrations(package: str) -> list[Migration]:
    """The migrations of a package's `migrations/NNN_title.sql` files, in order."""
    folder = files(package).joinpath("migrations")
    found = [
        Migration(int(entry.name[:3]), entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)
