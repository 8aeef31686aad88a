"""SQL kept in files, named queries and numbered migrations; and what of a handler's own is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from choreo.errors import StoreError

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


def beginning_with(verbs: str) -> re.Pattern[str]:
    """Matches statements that begin with one of these (`A|B`), after what a server skips."""
    return re.compile(rf"(?>[\s;]+|--[^\n]*|/\*.*?\*/)*+({verbs})\b", re.IGNORECASE | re.DOTALL)


def refuse(control: re.Pattern[str], sql: str) -> None:
    """Let a handler's statement pass, or not.

    Raises:
        StoreError: it would end or nest the transaction that other handlers' effects are in too.
    """
    if found := control.match(sql):
        raise StoreError(
            f"ctx.db refuses {' '.join(found[1].upper().split())}",
            why="the transaction is shared with the inbox, the outbox and other handlers",
            remedy="leave it to choreo: what a handler wrote is undone when it raises",
        )


def is_numbered(sql: str) -> bool:
    """Whether a handler's statement has its parameters as `$1, $2, …`, which every kind of store understands."""
    return "$1" in sql


def by_number(parameters: Sequence[Any]) -> dict[str, Any]:
    """Parameters by the number that stands for them in the statement."""
    return {str(number): value for number, value in enumerate(parameters, 1)}
