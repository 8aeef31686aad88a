"""Starting over from what the store knows, after a transaction failed or was fenced."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from choreo.errors import CopyError, DeadlockError, FencedError, LogError, OvertakenError, ReleasedError, StoreError
from choreo.log.port import Consumer, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.intake import Intake
from choreo.runtime.ownership import Ownership
from choreo.runtime.partitions import Partition
from choreo.runtime.reader import Reader
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork

_log = structlog.get_logger("choreo.runtime")
_FIRST_DELAY, _MAX_DELAY = 0.05, 10.0
_ASK_AGAIN = 1.0
"""Seconds between two questions to the group whether doubtful partitions are ours."""
_CALM = 30.0
"""Seconds without a failure after which the delay starts small again."""

_RACES: dict[type[BaseException], str] = {
    ReleasedError: "a parked key was released meanwhile",
    OvertakenError: "another instance was faster with a saga",
    CopyError: "another instance was faster with a copy of an event",
    DeadlockError: "transactions waited for each other and the database ended one",
}
_REASONS: dict[type[BaseException], str] = {
    FencedError: "fenced",
    ReleasedError: "released",
    OvertakenError: "overtaken",
    CopyError: "copy",
    DeadlockError: "deadlock",
    StoreError: "store",
    LogError: "log",
}


class Recovery:
    """Gives up everything under way and reads on from the store's progress."""

    def __init__(self, service: str, unit: UnitOfWork, clock: Clock, stats: Stats) -> None:
        self._service = service
        self._stats = stats
        self._unit = unit
        self._clock = clock
        self._needed = asyncio.Event()
        self._doubts = asyncio.Event()
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
        self._stats.failures[_reason(error)] += 1
        if isinstance(error, FencedError):
            self._ownership.doubt()
            _log.warning("fenced", service=self._service, error=str(error))
        elif race := _race(error):
            _log.info(f"{race}, records under way are handled again", service=self._service, reason=str(error))
            self._last_ms = 0  # it is no trouble, and no reason to wait longer and longer
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
        self._intake.forget_all()  # also what handlers that have outlived this would still have believed
        assigned = self._consumer.assignment
        doubtful = assigned & self._ownership.doubtful.keys()
        await self._consumer.pause(doubtful)
        await self._read_on(assigned - doubtful)
        self._reader.start()
        _log.info("recovered", service=self._service, partitions=len(assigned) - len(doubtful))
        if doubtful:
            self._doubts.set()

    async def _read_on(self, partitions: Collection[TopicPartition]) -> None:
        starts = await self._ownership.take_over(sorted(partitions))
        for at, offset in starts.items():
            await self._consumer.seek(at, offset)
        await self._consumer.resume(partitions)

    async def settle_doubts(self) -> None:
        """Take doubtful partitions back as soon as the group says that they are ours, until cancelled.

        Taking them over unasked could fence their rightful owner. The group takes a commit only from its members, and
        what is not ours (any more) it will take away.
        """
        doubtful, consumer = self._ownership.doubtful, self._consumer
        while True:
            await self._doubts.wait()
            asked = {at: max(0, watermark) for at, watermark in doubtful.items()}
            try:
                await consumer.commit(asked)
                async with self._ownership.lock:
                    ours = (
                        asked.keys() & doubtful.keys() & consumer.assignment
                    )  # others have gone or come back meanwhile
                    await self._read_on(ours)
                    for at in asked:
                        doubtful.pop(at, None)
                    if not doubtful:
                        self._doubts.clear()
                    _log.info(
                        "the group says that these partitions are ours", service=self._service, partitions=len(ours)
                    )
            except LogError as error:
                _log.info(
                    "the group does not say yet whose partitions these are", service=self._service, error=str(error)
                )
            await self._clock.sleep(_ASK_AGAIN)

    def _next_delay(self) -> float:
        now_ms = self._clock.now_ms()
        calm = now_ms - self._last_ms > _CALM * 1000
        self._last_ms = now_ms
        self._delay = _FIRST_DELAY if calm else min(_MAX_DELAY, self._delay * 2)
        return self._delay


def _race(error: BaseException) -> str | None:
    """What has happened, if it is something that ends right: somebody else was faster."""
    return next((said for kind, said in _RACES.items() if isinstance(error, kind)), None)


def _reason(error: BaseException) -> str:
    """What it was, in a word of the metrics."""
    return next((word for kind, word in _REASONS.items() if isinstance(error, kind)), "bug")
