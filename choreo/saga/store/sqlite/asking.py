"""Questions to the tracker's SQLite store, on a connection of its own: it sees what is committed, and waits for no writer."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from choreo.log.port import TopicPartition
from choreo.saga.sighting import Sighting
from choreo.saga.store.conditions import NUMBER, Condition, Dialect, Kind
from choreo.saga.store.packing import after_all, beginnings, compact, key_of, packed_event, saga_of, unpack
from choreo.saga.store.port import Commit, Place, Sightings, Summary
from choreo.saga.store.rows import COLUMNS, kind, summary
from choreo.saga.store.sqlite.writing import Q, holes, parts

_NUMBER = re.compile(NUMBER, re.ASCII).fullmatch
_HEX = "lower(hex(saga))"
_SPELLED = "||'-'||".join(
    f"substr({_HEX}, {first}, {length})" for first, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
)
DIALECT = Dialect(
    contains="instr(lower({text}), lower({part})) > 0",
    number="as_number({text})",
    saga=f"CASE WHEN length(saga) = 16 THEN {_SPELLED} ELSE saga_text(saga) END",
)
_WALKS = {"started": "INDEXED BY sagas_by_start", "kind": "INDEXED BY sagas_by_kind", "saga": ""}


def prepare(connection: sqlite3.Connection) -> None:
    """What questions need of a connection."""
    connection.create_function("as_number", 1, _number, deterministic=True)
    connection.create_function("saga_text", 1, saga_of, deterministic=True)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER(text) else None


class Asking:
    """Implements `paging.Asking`, and answers the rest."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kinds: dict[int, Kind] = {}
        self._names: dict[int, str] = {}
        self._places: dict[int, TopicPartition] = {}
        self._born = ""
        self.dialect = DIALECT
        self.named: Callable[[Sequence[bytes]], Condition] = _named

    def all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._connection.execute(query, values).fetchall()

    def check(self) -> None:
        """Begin to ask: of a store that was rebuilt the numbers are others."""
        ((born,),) = self.all(Q["born"])
        if born != self._born:
            self._born = born
            self._names.clear()
            self._places.clear()

    def _learn(self) -> None:
        """What names and places mean by now; a rebuilt store has other ones."""
        self._names = dict(self.all(Q["names"], (0,)))
        self._places = {row[0]: TopicPartition(row[1], row[2]) for row in self.all(Q["places"])}

    # --- lists ----------------------------------------------------------------------------------------------------

    def kinds(self) -> list[Kind]:
        """All that have sagas."""
        found = [kind(row) for row in self.all(Q["kinds"])]
        self._kinds = {each.id: each for each in found}
        return found

    async def at_most(self, said: Condition, limit: int) -> list[bytes]:
        return [key for (key,) in self.all(f"SELECT saga FROM sagas WHERE {said.sql} LIMIT {limit}", said.values)]

    async def rows(self, said: Condition, limit: int, *, walk: str) -> list[tuple[Any, ...]]:
        order = f"ORDER BY started DESC, saga DESC LIMIT {limit}"
        return self.all(f"SELECT {COLUMNS} FROM sagas {_WALKS[walk]} WHERE {said.sql} {order}", said.values)

    async def step(self, said: Condition, over: int, *, walk: str) -> int | None:
        order = f"ORDER BY started DESC LIMIT 1 OFFSET {over}"
        found = self.all(f"SELECT started FROM sagas {_WALKS[walk]} WHERE {said.sql} {order}", said.values)
        return found[0][0] if found else None

    def summary(self, row: tuple[Any, ...]) -> Summary:
        return summary(row, self._kinds[row[2]])

    def summaries(self, keys: Sequence[bytes]) -> list[Summary]:
        """Of those that are known."""
        self.kinds()
        found: list[Summary] = []
        for part in parts(keys):
            rows = self.all(f"SELECT {COLUMNS} FROM sagas WHERE saga IN ({holes(len(part))})", part)
            found += map(self.summary, rows)
        return found

    def durations(self, type_name: str, shares: Sequence[float]) -> list[int]:
        """See `TrackerStore.durations`."""
        found = sorted(row[0] for row in self.all(Q["durations"], (type_name,)))
        return [found[min(len(found) - 1, int(share * len(found)))] for share in shares] if found else []

    # --- one saga -------------------------------------------------------------------------------------------------

    def sightings(self, sagas: Iterable[str], mark: int) -> dict[str, Sightings]:
        """See `TrackerStore.sightings`."""
        ids = {key_of(saga): saga for saga in sagas}
        seen: dict[str, list[Sighting]] = {}
        for part in parts(sorted(ids)):
            for key, place, offset, packed in self.all(Q["sightings"].format(keys=holes(len(part))), part):
                seen.setdefault(ids[key], []).append(self._unpacked(place, offset, packed, ids[key]))
        for found in seen.values():
            letters = {each.said[0] for each in found if each.kind == "letter"}  # type: ignore[index]
            for letter in sorted(letters):
                rows = self.all(Q["settled"], (letter,))
                found += [self._unpacked(place, offset, packed, "") for place, offset, packed in rows]
        return {saga: Sightings(mark, found) for saga, found in seen.items()}

    def _unpacked(self, place: int, offset: int, packed: bytes, saga: str) -> Sighting:
        try:
            return unpack(self._places[place], offset, packed, self._names, saga=saga)
        except KeyError:  # a name or a place that has come since
            self._learn()
            return unpack(self._places[place], offset, packed, self._names, saga=saga)

    def sagas_of(self, event_id: str) -> list[str]:
        """See `TrackerStore.sagas_of`."""
        event = compact(event_id)
        keys = {key for (key,) in self.all(Q["sagas_of_stray"], (key_of(event_id),))}
        if isinstance(event, bytes):
            for key, packed in self.all(Q["near"], (event[:6], after_all(event[:6]))):
                if packed_event(packed) == event:
                    keys.add(key)
        return [saga_of(key) for key in sorted(keys)]

    def beginning_with(self, prefix: str, limit: int) -> list[str]:
        """See `TrackerStore.beginning_with`."""
        found: list[str] = []
        for first in beginnings(prefix):
            rows = self.all(Q["beginning"], (first, after_all(first), limit * 2))
            found += [saga for saga in (saga_of(key) for (key,) in rows) if saga.startswith(prefix)]
        return sorted(set(found))[:limit]

    def letters_beginning(self, prefix: str) -> list[str]:
        """See `TrackerStore.saga_of_letter`."""
        rows = self.all(Q["letters_beginning"], (prefix, prefix + "\U0010ffff"))
        return [saga_of(key) for (key,) in rows]

    # --- the tracker itself ---------------------------------------------------------------------------------------

    def progress(self) -> dict[TopicPartition, Place]:
        """See `TrackerStore.progress`."""
        return {TopicPartition(row[1], row[2]): Place(row[3], row[4]) for row in self.all(Q["places"])}

    def commits(self, group: str, at: TopicPartition, since: int) -> list[Commit]:
        """See `TrackerStore.commits`."""
        self._learn()
        groups = {text: number for number, text in self._names.items()}
        places = {each: number for number, each in self._places.items()}
        if group not in groups or at not in places:
            return []
        where = groups[group], places[at]
        return [Commit(*row) for row in self.all(Q["commits"], (*where, *where, since))]


def _named(keys: Sequence[bytes]) -> Condition:
    return Condition(f"(saga IN ({holes(len(keys))}))", tuple(keys))
