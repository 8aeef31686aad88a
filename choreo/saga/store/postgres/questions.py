"""Questions to the tracker's PostgreSQL store, and the numbers of its names: on a connection beside the transactions."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from choreo.errors import StoreUnavailableError
from choreo.log.port import TopicPartition
from choreo.saga.filters import Filter
from choreo.saga.sighting import Sighting
from choreo.saga.store import paging
from choreo.saga.store.conditions import Condition, Kind
from choreo.saga.store.packing import after_all, beginnings, compact, event_key, key_of, packed_event, saga_of, unpack
from choreo.saga.store.port import Commit, Count, Page, Place, Sightings, Summary
from choreo.saga.store.postgres.asking import Asking, numbered
from choreo.saga.store.postgres.writing import Q
from choreo.saga.store.rows import COLUMNS, kind
from choreo.saga.store.rows import summary as summary_of
from choreo.store.postgres.connection import Connection, Statement

_SNAPSHOT: Statement = (b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None)
_END: Statement = (b"COMMIT", None)


class Questions(ABC):
    """This part of `PostgresTrackerStore`; it never waits for a writer."""

    _reader: Connection
    _questions: asyncio.Lock

    @property
    @abstractmethod
    def url(self) -> str: ...

    # --- numbers --------------------------------------------------------------------------------------------------

    _born = ""
    """Which store the numbers are of, for who writes; and for who asks."""
    _asked = ""

    def _forget_numbers(self) -> None:
        """They are another store's."""
        self._name_ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._place_ids: dict[tuple[str, int], int] = {}
        self._partitions: dict[int, TopicPartition] = {}
        self._kind_ids: dict[tuple[str, ...], int] = {}

    async def _names(self, texts: Iterable[str]) -> None:
        """Have numbers for these names."""
        missing = sorted({text for text in texts if text not in self._name_ids})
        if missing:
            await self._rows("make_names", missing)
            for number, text in await self._rows("names", missing):
                self._name_ids[text], self._texts[number] = number, text

    async def _place(self, at: TopicPartition) -> int:
        """The number of a partition."""
        if at not in self._place_ids:
            await self._rows("make_places", [at.topic], [at.partition])
            await self._know_places()
        return self._place_ids[at]

    async def _know_places(self) -> None:
        for number, topic, partition, _, _ in await self._rows("places"):
            self._place_ids[topic, partition], self._partitions[number] = number, TopicPartition(topic, partition)

    async def _kind(self, columns: tuple[str, ...]) -> int:
        """The number of a kind."""
        if columns not in self._kind_ids:
            await self._rows("make_kind", *columns)
            ((self._kind_ids[columns],),) = await self._rows("kind", *columns)
        return self._kind_ids[columns]

    # --- sightings ------------------------------------------------------------------------------------------------

    async def marked(self, limit: int) -> list[str]:
        return [saga_of(key) for (key,) in await self._rows("marked", limit)]

    async def sightings(self, sagas: Iterable[str]) -> dict[str, Sightings]:
        ids = {key_of(saga): saga for saga in sagas}
        keys = sorted(ids)
        asked = [(Q[query], (keys,)) for query in ("marks", "sightings", "settled")]
        *cursors, _ = await self._run(*asked, _END, first=[_SNAPSHOT])
        found, rows, settled = [await cursor.fetchall() for cursor in cursors]
        marks, seen = dict(found), dict[str, list[Sighting]]()
        for key, *row in rows:
            seen.setdefault(ids[key], []).append(await self._unpacked(row, ids[key]))
        for key, *row in settled:
            if ids[key] in seen:
                seen[ids[key]].append(await self._unpacked(row, ""))
        return {saga: Sightings(marks.get(key_of(saga), 0), found) for saga, found in seen.items()}

    async def _unpacked(self, row: Sequence[Any], saga: str) -> Sighting:
        place, offset, packed = row
        try:
            return unpack(self._partitions[place], offset, packed, self._texts, saga=saga)
        except KeyError:  # a name or a place of another instance
            await self._know_places()
            self._texts.update(await self._rows("all_names"))
            return unpack(self._partitions[place], offset, packed, self._texts, saga=saga)

    # --- sagas ----------------------------------------------------------------------------------------------------

    async def _kinds(self) -> list[Kind]:
        return [kind(row) for row in await self._rows("kinds")]

    async def page(self, fits: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        async def ask(statement: bytes, values: Sequence[Any]) -> list[tuple[Any, ...]]:
            (cursor,) = await self._run((statement, list(values)))
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
            return rows

        kinds = await self._kinds()
        return await paging.page(Asking(ask, kinds), fits, kinds, limit, after)

    async def summaries(self, sagas: Iterable[str]) -> dict[str, Summary]:
        said = Condition("(saga = ANY(?::bytea[]))", (sorted(map(key_of, sagas)),))
        statement = numbered(said, f"SELECT {COLUMNS} FROM sagas WHERE {said.sql}")
        (cursor,) = await self._run((statement, list(said.values)))
        rows = await cursor.fetchall()
        kinds = {each.id: each for each in await self._kinds()}
        found = [summary_of(row, kinds[row[2]]) for row in rows if row[2] in kinds]
        return {each.saga: each for each in found}

    async def counts(self) -> list[Count]:
        return paging.counts(await self._kinds())

    async def durations(self, type_name: str, shares: Sequence[float]) -> list[int]:
        ((found,),) = await self._rows("durations", list(shares), type_name)
        return [] if found is None or None in found else [int(each) for each in found]

    async def beginning_with(self, prefix: str, limit: int) -> list[str]:
        found: set[str] = set()
        for first in beginnings(prefix):
            rows = await self._rows("beginning", first, after_all(first), limit * 2)
            found.update(saga for saga in (saga_of(key) for (key,) in rows) if saga.startswith(prefix))
        return sorted(found)[:limit]

    async def sagas_of(self, event_id: str) -> list[str]:
        event = compact(event_id)
        keys = {key for (key,) in await self._rows("sagas_of_stray", event_key(event))}
        if isinstance(event, bytes):
            rows = await self._rows("near", event[:6], after_all(event[:6]))
            keys |= {key for key, packed in rows if packed_event(packed) == event}
        return [saga_of(key) for key in sorted(keys)]

    async def saga_of_letter(self, letter_id: str) -> list[str]:
        return [saga_of(key) for (key,) in await self._rows("letters_beginning", letter_id)]

    async def data_of(self, saga: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in await self._rows("data_of", key_of(saga)):
            found.setdefault(name, []).append(value)
        return found

    # --- the tracker itself ---------------------------------------------------------------------------------------

    async def waited_for(self) -> dict[str, set[TopicPartition]]:
        found: dict[str, set[TopicPartition]] = {}
        for group, topic, partition in await self._rows("waited_for"):
            found.setdefault(group, set()).add(TopicPartition(topic, partition))
        return found

    async def committed(self) -> dict[tuple[str, TopicPartition], int]:
        rows = await self._rows("committed")
        return {(group, TopicPartition(topic, partition)): offset for group, topic, partition, offset in rows}

    async def progress(self) -> dict[TopicPartition, Place]:
        rows = await self._rows("places")
        return {TopicPartition(topic, number): Place(after, at_ms) for _, topic, number, after, at_ms in rows}

    async def commits(self, group: str, at: TopicPartition, since: int = 0) -> list[Commit]:
        return [Commit(*row) for row in await self._rows("commits", group, at.topic, at.partition, since)]

    async def notes(self) -> dict[str, str]:
        return dict(await self._rows("notes"))

    # --- statements -----------------------------------------------------------------------------------------------

    def _learn_of(self, found: list[tuple[str]]) -> None:
        """Forget what numbers mean in a store that was rebuilt. Who writes hears of that by itself."""
        born = found[0][0] if found else ""
        if self._asked not in {"", born}:
            self._texts.clear()
            self._partitions.clear()
        self._asked = born

    async def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        (cursor,) = await self._run((Q[query], list(values) or None))
        return await cursor.fetchall() if cursor.description else []

    async def _run(self, *statements: Statement, first: Sequence[Statement] = ()) -> list[Any]:
        """Run statements in one round trip; the answers are without those of `first`."""
        async with self._questions:  # several statements in one round trip are nobody else's
            await self._reader.open()
            try:
                cursors = await self._reader.run(*first, (Q["born"], None), *statements)
                self._learn_of(await cursors[len(first)].fetchall())
                return cursors[len(first) + 1 :]
            except psycopg.Error as error:
                await self._reader.close()
                said = str(error).partition("\n")[0]
                raise StoreUnavailableError(f"the tracker's store {self.url} refuses", why=said) from error
