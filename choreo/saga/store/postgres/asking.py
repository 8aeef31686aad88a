"""Lists of the tracker's PostgreSQL store: implements `paging.Asking`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from choreo.saga.store.conditions import NUMBER, Condition, Dialect, Kind
from choreo.saga.store.port import Summary
from choreo.saga.store.rows import COLUMNS, summary

_HOLE = re.compile(r"\?")
_PATTERN = NUMBER.replace("?", "{0,1}").replace("{", "{{").replace("}", "}}")
"""Without question marks, which stand for parameters, and with the braces of a format."""
DIALECT = Dialect(
    contains="""position(lower({part}::text COLLATE "C") IN lower({text} COLLATE "C")) > 0""",
    number=f"CASE WHEN {{text}} ~ '^{_PATTERN}$' THEN {{text}}::float8 END",
    saga=(
        "CASE WHEN length(saga) = 16 THEN encode(saga, 'hex')::uuid::text ELSE convert_from(CASE WHEN "
        "get_byte(saga, length(saga) - 1) = 255 THEN substr(saga, 9, length(saga) - 9) ELSE substr(saga, 9) END, 'UTF8') END"
    ),
)


def numbered(said: Condition, sql: str) -> bytes:
    """The statement with PostgreSQL's own parameters; a condition has no `?` but those."""
    numbers = iter(range(1, len(said.values) + 1))
    return _HOLE.sub(lambda _: f"${next(numbers)}", sql).encode()


class Asking:
    """Answers from what is committed.

    Args:
        ask: runs a statement, and gives its rows.
        kinds: all that there are.
    """

    def __init__(
        self, ask: Callable[[bytes, Sequence[Any]], Awaitable[list[tuple[Any, ...]]]], kinds: Sequence[Kind]
    ) -> None:
        self._ask = ask
        self._kinds = {kind.id: kind for kind in kinds}
        self.dialect = DIALECT
        self.named: Callable[[Sequence[bytes]], Condition] = _named

    async def at_most(self, said: Condition, limit: int) -> list[bytes]:
        rows = await self._of(said, f"SELECT saga FROM sagas WHERE {said.sql} LIMIT {limit}")
        return [key for (key,) in rows]

    async def rows(self, said: Condition, limit: int, *, walk: str) -> list[tuple[Any, ...]]:  # noqa: ARG002 - it plans by itself
        order = f"ORDER BY started DESC, saga DESC LIMIT {limit}"
        return await self._of(said, f"SELECT {COLUMNS} FROM sagas WHERE {said.sql} {order}")

    async def step(self, said: Condition, over: int, *, walk: str) -> int | None:  # noqa: ARG002 - it plans by itself
        order = f"ORDER BY started DESC LIMIT 1 OFFSET {over}"
        found = await self._of(said, f"SELECT started FROM sagas WHERE {said.sql} {order}")
        return found[0][0] if found else None

    def summary(self, row: tuple[Any, ...]) -> Summary:
        return summary(row, self._kinds[row[2]])

    async def _of(self, said: Condition, sql: str) -> list[tuple[Any, ...]]:
        return await self._ask(numbered(said, sql), said.values)


def _named(keys: Sequence[bytes]) -> Condition:
    return Condition("(saga = ANY(?::bytea[]))", (list(keys),))
