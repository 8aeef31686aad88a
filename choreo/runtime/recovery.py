"""Starting over from what the store knows, after a transaction failed or was fenced."""

from __future__ import annotations

import asyncio

import structlog

from choreo.errors import FencedError, LogError, ReleasedError, StoreError
from choreo.log.port import Consumer, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.intake import Intake
from choreo.runtime.ownership import Ownership
from choreo.runtime.partitions import Partition
from choreo.runtime.reader import Reader
from choreo.runtime.unit import UnitOfWork

_log = structlog.get_logger("choreo.runtime")
_FIRST_DELAY, _MAX_DELAY = 0.05, 10.0
_FENCED_PATIENCE = 60.0
"""Seconds after which the group should know who owns a partition that another instance has fenced us from: a little
more than Kafka's default `session.timeout.ms`."""
_CALM = 30.0
"""Seconds without a failure after which the delay starts small again."""


class Recovery:
    """Gives up everything under way and reads on from the store's progress."""

    def __init__(self, service: str, unit: UnitOfWork, clock: Clock) -> None:
        self._service = service
        self._unit = unit
        self._clock = clock
        self._needed = asyncio.Event()
        self._given_up: list[Partition] = []
        self._delay = _FIRST_DELAY
        self._last_ms = 0
        self._consumer: Consumer
        self._reader: Reader
        self._ownership: Ownership
        self._intake: Intake

    def connect(self, consumer: Consumer, reader: Reader, ownership: Ownership, intake: Intake) -> None:
        """Name the parts it works on; they in turn report to it, so they are made after it."""
        self._consumer, self._reader, self._ownership, self._intake = consumer, reader, ownership, intake

    def fail(self, error: BaseException) -> None:
        """Something failed outside the handlers' own code. Nothing under way counts from this moment on."""
        if isinstance(error, FencedError):
            self._ownership.fenced.update(TopicPartition(*pair) for pair in error.partitions)
            _log.warning("fenced", service=self._service, error=str(error))
        elif isinstance(error, ReleasedError):
            _log.info("a parked key was released meanwhile, records under way are handled again", service=self._service)
            self._last_ms = 0  # a race, no trouble: it is no reason to wait longer and longer
        elif isinstance(error, StoreError | LogError):
            _log.error(
                "nothing was committed, records under way are handled again", service=self._service, error=str(error)
            )
        elif isinstance(error, Exception):
            _log.error("transaction failed, records under way are handled again", service=self._service, exc_info=error)
        self._given_up += self._ownership.abandon_all()
        self._intake.forget_all()
        self._unit.forget()
        self._needed.set()

    async def run(self) -> None:
        """Recover whenever needed, until cancelled."""
        while True:
            await self._needed.wait()
            await self._clock.sleep(self._next_delay())
            self._needed.clear()
            try:
                async with self._ownership.lock:
                    await self._recover()
            except LogError as error:  # the group has moved on meanwhile, or the log is away
                self.fail(error)

    async def _recover(self) -> None:
        await self._reader.stop()
        given_up, self._given_up = [*self._given_up, *self._ownership.abandon_all()], []
        await self._unit.discard()
        await self._ownership.let_finish(given_up)
        assigned = self._consumer.assignment
        fenced = self._ownership.fenced & assigned
        if fenced:
            # The group will take these away soon; taking them over again would only fence their rightful owner.
            await self._consumer.pause(fenced)
            asyncio.get_running_loop().call_later(_FENCED_PATIENCE, self._reclaim)
        await self._consumer.resume(assigned - fenced)
        starts = await self._ownership.take_over(sorted(assigned - fenced))
        for at, offset in starts.items():
            await self._consumer.seek(at, offset)
        self._reader.start()
        _log.info("recovered", service=self._service, partitions=len(starts))

    def _reclaim(self) -> None:
        """Who fenced us was not the owner in the end if the group still counts on us."""
        if left := self._ownership.fenced & self._consumer.assignment:
            self._ownership.fenced.clear()
            self.fail(StoreError(f"{len(left)} partitions of ours had been taken over", remedy="taking them back"))

    def _next_delay(self) -> float:
        now_ms = self._clock.now_ms()
        calm = now_ms - self._last_ms > _CALM * 1000
        self._last_ms = now_ms
        self._delay = _FIRST_DELAY if calm else min(_MAX_DELAY, self._delay * 2)
        return self._delay
