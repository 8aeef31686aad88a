"""Reading: polls as long as there is room, and hands over to intake and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from choreo.log.port import Consumer, Record
from choreo.runtime.backpressure import Backpressure
from choreo.runtime.intake import Intake
from choreo.runtime.operations import Operations
from choreo.runtime.workers import Workers

_CHUNK = 250
"""Records taken in at once. More gain nothing, and are out of the processor's cache when their handlers run."""


class Reader:
    """The loop from the log to the lanes.

    When there is no room it does not poll; the log's adapter then keeps the membership by itself.

    Args:
        pressure: says how many records may be read.
        operations: told of what is read.
        spawn: starts a task that the instance watches.
        on_failure: told why records could not be taken in; reading has ended then.

    Attributes:
        is_at_rest: whether all that was read has been taken in.
    """

    def __init__(
        self,
        consumer: Consumer,
        intake: Intake,
        workers: Workers,
        *,
        pressure: Backpressure,
        operations: Operations,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._on_failure = on_failure
        self._consumer = consumer
        self._intake = intake
        self._workers = workers
        self._pressure = pressure
        self._operations = operations
        self._spawn = spawn
        self._room = asyncio.Event()
        self.is_at_rest = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self.is_at_rest = True
        self._task = self._spawn(self._read())

    async def stop(self) -> None:
        """Stop reading; what was being taken in is given up."""
        if self._task is not None:
            task, self._task, self.is_at_rest = self._task, None, False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def room_made(self) -> None:
        """Something under way has ended."""
        self._room.set()

    async def _read(self) -> None:
        while True:
            room = await self._pressure.room()
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            records = await self._consumer.poll(min(room, _CHUNK), self._pressure.patience)
            self._pressure.weigh(records)
            self.is_at_rest = False
            try:
                await self._take_in(records)
            except Exception as error:  # noqa: BLE001 - the records are not lost: recovery reads them again
                self._on_failure(error)
                return
            self.is_at_rest = True
            self._workers.wake()
            await asyncio.sleep(0)  # the workers handle these while the processor's cache still holds them

    async def _take_in(self, records: Sequence[Record]) -> None:  # by itself: nothing here is to keep jobs for long
        with self._operations.taking_in(records) as jobs:
            jobs.extend(await self._intake.accept(records))
