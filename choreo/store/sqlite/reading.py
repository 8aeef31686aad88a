"""What is looked at beside the transaction, on a connection of its own: it sees what is committed, and never waits for a writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from choreo.log.port import Record, TopicPartition
from choreo.store import records
from choreo.store.packing import each
from choreo.store.port import Note, OutboxRow, Row, Timer
from choreo.store.sql import load_queries
from choreo.store.sqlite.database import passing

_Q = load_queries("choreo.store.sqlite")


class Reading:
    """This part of `SqliteStore`. Everything is short, and done on the calling thread."""

    _reader: sqlite3.Connection
    _path: Path
    _publishing: set[int]
    """Outbox rows that this instance wrote, and publishes from memory."""

    def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        with passing(self._path):
            return self._reader.execute(sql, parameters).fetchall()

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:
        return {key for (key,) in self._rows(_Q["seen"], (b"".join(keys), each(keys)))}

    async def notes(self, keys: Sequence[bytes]) -> dict[bytes, list[Note]]:
        found: dict[bytes, list[Note]] = {}
        asked = dict.fromkeys(keys)
        for key, number, kind, content in self._rows(_Q["notes"], (b"".join(asked), each(asked))):
            found.setdefault(key, []).append(Note(number, kind, content))
        for notes in found.values():
            notes.sort()
        return found

    def _walk(self, query: str, after: bytes, limit: int) -> list[Row]:
        """Keys that follow, and until when each is kept."""
        return self._rows(_Q[query], (after, limit))

    async def behind(self, lane: bytes, limit: int, head: str = "") -> list[tuple[int, Record]] | None:
        return records.waiting(self._rows(_Q["behind"], (lane, head, max(1, limit))), limit)

    async def abandoned(self, before_ms: int) -> list[OutboxRow]:
        rows = self._rows(_Q["abandoned"], (before_ms,))
        return [
            OutboxRow(row_id, records.emitted(packed)) for row_id, _, packed in rows if row_id not in self._publishing
        ]

    async def due(self, partitions: Iterable[TopicPartition], before_ms: int, limit: int) -> list[Timer]:
        rows = self._rows(_Q["due"], (_json(partitions), before_ms, limit))
        return [
            Timer(timer_id, TopicPartition(topic, partition), due, handler, records.waiter(packed))
            for timer_id, topic, partition, due, handler, packed in rows
        ]

    async def next_due(self, partitions: Iterable[TopicPartition]) -> int | None:
        ((due,),) = self._rows(_Q["next_due"], (_json(partitions),))
        return None if due is None else int(due)

    async def pending(self, partitions: Iterable[TopicPartition]) -> tuple[int, int | None]:
        ((count, due),) = self._rows(_Q["pending"], (_json(partitions),))
        return int(count), due

    async def watermarks(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        rows = self._rows(_Q["watermarks"], (_json(partitions),))
        return {TopicPartition(topic, partition): watermark for topic, partition, watermark in rows}


def _json(partitions: Iterable[TopicPartition]) -> str:
    return to_json(list(partitions)).decode()
