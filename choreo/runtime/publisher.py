"""Publishing what the outbox holds: from memory, in order, right after the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import structlog

from choreo.errors import LogError, LogUnavailableError, RecordTooLargeError
from choreo.log.port import Log, NewRecord, Producer
from choreo.runtime.clock import Clock
from choreo.runtime.operations import Operations

_log = structlog.get_logger("choreo.runtime")
_DEPTH = 8
"""How many appends may be under way; what is put meanwhile goes together into the next one."""
_MAX_RECORDS = 5_000
_FIRST_DELAY, _MAX_DELAY = 0.1, 5.0


class _Row(NamedTuple):
    """An outbox row.

    Attributes:
        last: how many of its records, at the end, may be in the log only when everything before them is.
        put_ms: when it was put here, milliseconds since the epoch.
        spans: recorded spans that emitted them; None if only the records can tell.
    """

    row_id: int
    records: list[NewRecord]
    last: int
    put_ms: int
    spans: Sequence[Any] | None


class Publisher:
    """Appends outbox rows to the log in their order, without waiting for the acknowledgements of earlier ones.

    The first append that fails breaks the producer, and with a new one everything is repeated from there: a key's order
    is kept and nothing is left out. Copies that this makes have the same event ids, and every inbox drops them.

    Args:
        on_published: told the outbox rows that are in the log now.
        operations: told of each append.
        last: topics whose records wait until all before them is acknowledged: whoever reads one goes on with its key, and
            what he emits must not overtake what was emitted here.

    Attributes:
        backlog: how many records are not known to be in the log.
    """

    def __init__(
        self,
        log: Log,
        clock: Clock,
        on_published: Callable[[Sequence[int]], None],
        operations: Operations,
        last: Collection[str] = (),
    ) -> None:
        self._source = log
        self._operations = operations
        self._clock = clock
        self._on_published = on_published
        self._last = last
        self._waiting: deque[_Row] = deque()
        self._under_way: deque[tuple[list[_Row], asyncio.Task[None]]] = deque()
        self._known: set[int] = set()
        self._producer: Producer | None = None
        self._failed: asyncio.Future[BaseException]
        self._drained = asyncio.Event()
        self._drained.set()
        self._singly = False
        self._delay = _FIRST_DELAY
        self.backlog = 0

    def put(self, row: int, records: list[NewRecord], spans: Sequence[Any] | None = None) -> None:
        """Publish these after everything put before, unless this row is among that; `spans`: see `Operations.sending`."""
        if row not in self._known:
            self._known.add(row)
            if last := [record for record in records if record[0] in self._last]:
                records = [*(record for record in records if record[0] not in self._last), *last]
            self._waiting.append(_Row(row, records, len(last), self._clock.now_ms(), spans))
            self.backlog += len(records)
            self._drained.clear()
            self._go_on()

    @property
    def rows(self) -> frozenset[int]:
        """The outbox rows that are not known to be in the log."""
        return frozenset(self._known)

    @property
    def age(self) -> float:
        """How long the oldest of these rows has been here, in seconds; 0 if there is none."""
        rows = self._under_way[0][0] if self._under_way else self._waiting
        return max(0.0, (self._clock.now_ms() - rows[0].put_ms) / 1000) if rows else 0.0

    async def drained(self) -> None:
        """Wait until everything is in the log."""
        await self._drained.wait()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            producer = self._source.producer(gapless=True)
            try:
                await self._publish(producer)
            except LogError as error:
                # Even a refusal (no such topic, no right to write) is repeated: the records are safe in the
                # outbox, and an operator can mend the cause while the service waits.
                level = 30 if isinstance(error, LogUnavailableError) else 40
                who = self._operations.client
                _log.log(level, "cannot publish, trying again", service=who, error=str(error), records=self.backlog)
            except asyncio.CancelledError:
                for _, task in self._under_way:
                    task.cancel()
                raise
            finally:
                await producer.close()
            # Only a batch may have been too large, perhaps not that of the append that was the first to fail.
            self._singly = any(isinstance(failure, RecordTooLargeError) for failure in await self._take_back())
            await self._clock.sleep(self._delay * (0.5 + self._clock.random() / 2))
            self._delay = min(_MAX_DELAY, self._delay * 2)

    async def _publish(self, producer: Producer) -> None:
        """Publish until an append fails.

        Raises:
            LogError: why it failed.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self._producer = producer
        try:
            self._go_on()
            raise await self._failed
        finally:
            self._producer = None

    def _go_on(self) -> None:
        """Begin as many appends as may be under way: done by who puts rows or hears of an end, so no task is woken for it."""
        producer = self._producer
        if producer is None:
            return
        while self._waiting and len(self._under_way) < (1 if self._singly or self._waiting[0].last else _DEPTH):
            rows = self._next()
            task = asyncio.get_running_loop().create_task(self._append(producer, rows))
            task.add_done_callback(self._ended)
            self._under_way.append((rows, task))

    def _ended(self, _: asyncio.Task[None]) -> None:
        if self._producer is None:  # they are taken back
            return
        if failures := self._acknowledge():
            self._producer = None
            if not self._failed.done():  # cancelled, with who waits for it
                self._failed.set_result(failures[0])
        else:
            self._go_on()

    def _next(self) -> list[_Row]:
        rows: list[_Row] = []
        size = 0
        while self._waiting and size < (1 if self._singly else _MAX_RECORDS):
            if rows and self._waiting[0].last:
                break
            rows.append(self._waiting.popleft())
            size += len(rows[-1].records)
            if rows[-1].last:
                break
        return rows

    async def _append(self, producer: Producer, rows: Sequence[_Row]) -> None:
        if not self._singly:
            records = [record for row in rows for record in row.records]
            first = len(records) - rows[0].last
            spans = _spans(rows)
            for part in (records[:first], records[first:]):
                if part:
                    with self._operations.sending(part, spans):
                        await producer.append(part)
            return
        records = rows[0].records
        while records:
            with self._operations.sending(records[:1]):
                await producer.append(records[:1])
            del records[0]
            self.backlog -= 1

    def _acknowledge(self) -> list[BaseException]:
        """Report what is in the log. Returns why the other appends that have ended failed."""
        kept: deque[tuple[list[_Row], asyncio.Task[None]]] = deque()
        published: list[_Row] = []
        failures: list[BaseException] = []
        for rows, task in self._under_way:
            if not task.done():
                kept.append((rows, task))
            elif error := _why(task):
                failures.append(error)
                kept.append((rows, task))
            else:
                published += rows
        self._under_way = kept
        if published:
            self._delay, self._singly = _FIRST_DELAY, False
            self.backlog -= sum(len(row.records) for row in published)
            self._known.difference_update(row.row_id for row in published)
            self._on_published([row.row_id for row in published])
        if not self._waiting and not self._under_way:
            self._drained.set()
        return failures

    async def _take_back(self) -> list[BaseException]:
        """Put what the log has not acknowledged before everything else again, in its order; why that was."""
        await asyncio.gather(*(task for _, task in self._under_way), return_exceptions=True)
        failures = self._acknowledge()
        for rows, _ in reversed(self._under_way):
            self._waiting.extendleft(reversed(rows))
        self._under_way.clear()
        return failures


def _spans(rows: Sequence[_Row]) -> Sequence[Any] | None:
    """The recorded spans that emitted these; None if only the records can tell."""
    found: list[Any] = []
    for row in rows:
        if row.spans is None:
            return None
        found += row.spans
    return found


def _why(append: asyncio.Task[None]) -> BaseException | None:
    """Why an append that has ended failed, if it did."""
    if append.cancelled():
        return LogUnavailableError("an append was given up", remedy="repeat")
    return append.exception()
