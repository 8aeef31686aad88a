"""Publishing what the outbox holds: from memory, in order, right after the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from choreo.errors import LogError, LogUnavailableError
from choreo.log.port import NewRecord, Producer
from choreo.runtime.clock import Clock

_log = structlog.get_logger("choreo.runtime")
_MAX_RECORDS = 5_000
_FIRST_DELAY, _MAX_DELAY = 0.1, 5.0


class Publisher:
    """Appends outbox rows to the log, one append at a time, each taking all rows that wait.

    A failed append is repeated whole before anything later is appended, so a key's order is kept and nothing is
    left out; copies that this makes have the same event ids, and every inbox drops them.

    Args:
        on_published: told the outbox rows that are in the log now.
    """

    def __init__(self, producer: Producer, clock: Clock, on_published: Callable[[Sequence[int]], None]) -> None:
        self._producer = producer
        self._clock = clock
        self._on_published = on_published
        self._waiting: deque[tuple[int, list[NewRecord]]] = deque()
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.backlog = 0

    def put(self, row: int, records: list[NewRecord]) -> None:
        """Publish these after everything put before, unless this row is among that."""
        if any(row == waiting for waiting, _ in self._waiting):
            return
        self._waiting.append((row, records))
        self.backlog += len(records)
        self._drained.clear()
        self._more.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._more.wait()
            rows, records = self._next()
            await self._append(records)
            self.backlog -= len(records)
            self._on_published(rows)
            if not self._waiting:
                self._more.clear()
                self._drained.set()

    async def drained(self) -> None:
        """Wait until everything is in the log."""
        await self._drained.wait()

    def _next(self) -> tuple[list[int], list[NewRecord]]:
        rows: list[int] = []
        records: list[NewRecord] = []
        while self._waiting and len(records) < _MAX_RECORDS:
            row, more = self._waiting.popleft()
            rows.append(row)
            records.extend(more)
        return rows, records

    async def _append(self, records: Sequence[NewRecord]) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                await self._producer.append(records)
                return
            except LogError as error:
                # Even a refusal (no such topic, no right to write) is repeated: the records are safe in the
                # outbox, and an operator can mend the cause while the service waits.
                passing = isinstance(error, LogUnavailableError)
                _log.log(
                    30 if passing else 40,
                    "cannot publish, trying again",
                    error=str(error),
                    records=len(records),
                    delay=delay,
                )
            await self._clock.sleep(delay * (0.5 + self._clock.random() / 2))
            delay = min(_MAX_DELAY, delay * 2)
