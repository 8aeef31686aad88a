"""Which way a page of a list is found: a decision, made after asking how many sagas there are at most. Pure but for time.

Newest first, with any filter, in a store of millions: where an index leaves few sagas, all of them are looked at. Else they
are walked through from the newest, in growing steps, until the page is full or it has taken too long for one answer.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from choreo.errors import ConfigurationError
from choreo.saga.filters import Filter
from choreo.saga.store.conditions import Condition, Dialect, Kind, condition, of_kinds, possible, sharp
from choreo.saga.store.port import Count, Page, Summary

FEW = 2_000
"""So many sagas are looked at one by one."""
_FIRST, _MOST = 1_000, 10_000
"""How many sagas a step passes over."""
_PATIENCE = 0.025
"""Seconds after which a walk takes no further step: an answer comes soon, or says where to go on."""
_RARE = 0.1
"""Kinds with a smaller share of all sagas are walked through by themselves, if they are few."""
_SEVERAL = 50


_CURSOR = re.compile(r"(-?[0-9]{1,18})\.((?:[0-9a-f]{2}){0,2000})").fullmatch


class Cursor(NamedTuple):
    """A place in the list: the start and the key of the saga that was shown last."""

    started: int
    saga: bytes

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `str` has written.

        Raises:
            ConfigurationError: none has been.
        """
        said = _CURSOR(text)
        if said is None:
            raise ConfigurationError(f"no page ends at {text[:80]!r}", remedy="take what the last page has named")
        return cls(int(said[1]), bytes.fromhex(said[2]))

    def __str__(self) -> str:
        return f"{self.started}.{self.saga.hex()}"

    @property
    def older(self) -> Condition:
        """That a saga comes after it."""
        return Condition("(started <= ? AND (started < ? OR saga < ?))", (self.started, self.started, self.saga))


class Asking(Protocol):
    """What a store answers."""

    async def at_most(self, said: Condition, limit: int) -> list[bytes]:
        """The keys of sagas of which this is true, at most so many."""

    async def rows(self, said: Condition, limit: int, *, walk: str) -> list[tuple[Any, ...]]:
        """Rows of sagas of which this is true, newest first.

        Args:
            walk: the index to go along: `started`, `kind`, or `saga` where they are named.
        """

    async def step(self, said: Condition, over: int, *, walk: str) -> int | None:
        """When the saga began that comes so many after the first of which this is true; None if there are not so many."""

    def summary(self, row: tuple[Any, ...]) -> Summary:
        """A row as it is shown."""

    dialect: Dialect
    named: Callable[[Sequence[bytes]], Condition]
    """That a saga is one of these."""


async def page(store: Asking, fits: Filter, kinds: Sequence[Kind], limit: int, after: str | None) -> Page:
    """A page of sagas that fit."""
    cursor = None if after is None else Cursor.parse(after)
    there = possible(fits, kinds)
    said = condition(fits, kinds, store.dialect)
    if not there:
        return Page([], None)
    few = await _few(store, fits, there, kinds)
    if few is not None:
        parts = [store.named(few), said, *([cursor.older] if cursor else [])]
        rows = await store.rows(_all(parts), limit + 1, walk="saga") if few else []
        return _page(store, rows, limit, None)
    count, everything = sum(kind.sagas for kind in there), sum(kind.sagas for kind in kinds)
    if len(there) <= _SEVERAL and count < _RARE * everything:
        return await _walk(store, said, [of_kinds([kind.id]) for kind in there], "kind", limit, cursor)
    return await _walk(store, said, [Condition("(1 = 1)")], "started", limit, cursor)


async def _few(store: Asking, fits: Filter, there: Sequence[Kind], kinds: Sequence[Kind]) -> list[bytes] | None:
    """All sagas that can fit, if an index says that these are few."""
    if sum(kind.sagas for kind in there) < FEW:
        return await store.at_most(of_kinds(kind.id for kind in there), FEW)
    for part in sharp(fits):
        found = await store.at_most(condition(part, kinds, store.dialect), FEW)
        if len(found) < FEW:
            return found
    return None


async def _walk(
    store: Asking, said: Condition, sources: Sequence[Condition], walk: str, limit: int, cursor: Cursor | None
) -> Page:
    """Step by step from the newest; `sources` are walked side by side."""
    rows: list[tuple[Any, ...]] = []
    step, until, any_source = _FIRST, time.monotonic() + _PATIENCE, _any(sources)
    while True:
        older = [cursor.older] if cursor else []
        ends = [await store.step(_all([source, *older]), step, walk=walk) for source in sources]
        end = max((each for each in ends if each is not None), default=None)
        bound = [] if end is None else [Condition("(started >= ?)", (end,))]
        rows += await store.rows(_all([any_source, said, *older, *bound]), limit + 1 - len(rows), walk=walk)
        if len(rows) > limit or end is None:
            return _page(store, rows, limit, None)
        cursor = Cursor(end, b"")
        if time.monotonic() > until:
            return _page(store, rows, limit, cursor)
        step = min(_MOST, step * 4)


def _page(store: Asking, rows: Sequence[tuple[Any, ...]], limit: int, broken_off: Cursor | None) -> Page:
    shown = [store.summary(row) for row in rows[:limit]]
    if len(rows) > limit:
        key, started = rows[limit - 1][:2]
        return Page(shown, str(Cursor(started, bytes(key))))
    return Page(shown, None if broken_off is None else str(broken_off))


def _all(parts: Sequence[Condition]) -> Condition:
    sql = " AND ".join(part.sql for part in parts)
    return Condition(f"({sql})", tuple(value for part in parts for value in part.values))


def _any(parts: Sequence[Condition]) -> Condition:
    sql = " OR ".join(part.sql for part in parts)
    return Condition(f"({sql})", tuple(value for part in parts for value in part.values))


def counts(kinds: Sequence[Kind]) -> list[Count]:
    """How many sagas there are by type, state and outcome."""
    found: Counter[tuple[str, str, str]] = Counter()
    for kind in kinds:
        found[kind.type, kind.state, kind.outcome] += kind.sagas
    return [
        Count(type_name, state, outcome or None, sagas)  # type: ignore[arg-type] # as they were given
        for (type_name, state, outcome), sagas in sorted(found.items())
        if sagas
    ]
