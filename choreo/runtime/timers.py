"""Deadlines: what is due is handled by who owns the partition that its event came from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import structlog

from choreo.errors import LogError, StoreError
from choreo.handler import Deadline
from choreo.log.port import Log, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.decoding import Decoder
from choreo.runtime.lanes import Lanes
from choreo.runtime.parking import retry_record
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.unit import UnitOfWork
from choreo.service import Service
from choreo.store.port import Timer

_log = structlog.get_logger("choreo.runtime")
_AT_ONCE = 500
"""How many timers are taken at once."""
_SOON = 0.05
"""Seconds between two looks while something is due."""
_FOLLOW = 0.25
"""Seconds between two looks at where partitions end."""
_TROUBLE = 1.0
"""Seconds until the next look when log or store give no answer."""
_DEADLY = 2
"""How many owners in a row must have died before a timer is suspected of it."""
_SAID = 30_000
"""Milliseconds between two warnings of what keeps timers waiting."""


def has_deadlines(service: Service) -> bool:
    """Whether a service has timers."""
    return any(isinstance(handler.rule, Deadline) for handler in service.handlers.values())


class Timers:
    """Lets happen what is due.

    What stops a timer may lie in the log, produced in time and not read yet: after a stop of days, or in a partition of
    another instance. So nothing happens before all that was in the log at some moment since it was due is handled.

    Args:
        owned: the partitions this instance owns.
        ends: tells of partitions that are read to the log's end, though no record lies next to it.
        wake: called when there is something to do for the workers.
    """

    def __init__(
        self,
        service: Service,
        *,
        ends: Callable[[], Mapping[TopicPartition, int]],
        log: Log,
        unit: UnitOfWork,
        decoder: Decoder,
        lanes: Lanes[Job],
        owned: Mapping[TopicPartition, Partition],
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        rules = {name: each.rule for name, each in service.handlers.items() if isinstance(each.rule, Deadline)}
        self._service = service.name
        self._handlers = frozenset(rules)
        stops = {event for rule in rules.values() for event in rule.unless}
        self._topics = frozenset(topic for event in stops for topic in event.contract.topics)
        self._read_to = ends
        self._source = log
        self._unit = unit
        self._decoder = decoder
        self._lanes = lanes
        self._owned = owned
        self._clock = clock
        self._wake = wake
        self._changed = asyncio.Event()
        self._next_ms: int | None = None
        self._horizon_ms = 0  # what the log held then is handled
        self._ends: tuple[int, Mapping[TopicPartition, int]] | None = None
        self._said_ms = 0
        self._left: set[bytes] = set()  # timers of handlers that are not there
        self._placed: set[tuple[TopicPartition, bytes]] = set()
        self._detoured: set[tuple[int, bytes]] = (
            set()
        )  # by the epoch of the partition: what is undone is done again in a new one
        self._is_stuck = False  # what is due cannot happen yet, and it is not time that it waits for

    def set(self, due_ms: int) -> None:
        """A timer has been set."""
        if self._next_ms is None or due_ms < self._next_ms:
            self._next_ms = due_ms
            self._changed.set()

    def look(self) -> None:
        """Partitions have come, with their timers."""
        self._changed.set()

    async def run(self) -> None:
        """Let things happen until cancelled."""
        while True:
            self._changed.clear()
            try:
                wait = await self._look()
            except (StoreError, LogError) as error:
                _log.warning("timers are looked at later", service=self._service, error=str(error))
                wait = _TROUBLE
            await self._until_changed(wait)

    async def follow_ends(self) -> None:
        """Let the watermarks follow the log's ends over what holds no records (marks of transactions), until cancelled.

        Else nobody, other instances least of all, could know that nothing is left to be read there.
        """
        while True:
            for at, end in self._read_to().items():
                partition = self._owned.get(at)
                if partition is not None and not partition.leaving.is_set() and partition.tracker.skip(end):
                    self._unit.come_on(partition)
            await self._clock.pause(_FOLLOW)

    async def _until_changed(self, wait: float | None) -> None:
        changed = asyncio.ensure_future(self._changed.wait())
        ends: set[asyncio.Future[Any]] = {changed}
        if wait is not None:
            ends.add(asyncio.ensure_future(self._clock.pause(wait) if self._is_stuck else self._clock.sleep(wait)))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()

    async def _look(self) -> float | None:
        """Place what is due; returns the seconds until the next look, None if only a change can make one necessary."""
        self._next_ms = None  # a timer that is set meanwhile may not be among those that are read
        if not self._owned:
            return None
        now_ms = self._clock.now_ms()
        self._placed = {lane for lane in self._placed if self._lanes.is_open(lane)}
        # What cannot go on, or has nobody, must not hide what can.
        most = _AT_ONCE + len(self._placed) + len(self._left)
        found = await self._unit.store.due(list(self._owned), now_ms + 1, most)
        due = [timer for timer in found if timer.handler in self._handlers]
        self._leave(found)
        fresh = [timer for timer in due if (timer.at, timer.timer_id) not in self._placed]
        self._is_stuck = bool(found)
        if len(found) < most:
            self._lay_ghosts({timer.at for timer in due})
        if self._detoured:
            still = {timer.timer_id for timer in due}
            self._detoured = {each for each in self._detoured if each[1] in still}
        if fresh and await self._is_handled(max(timer.due_ms for timer in fresh)):
            self._is_stuck = False
            for timer in fresh:
                await self._place(timer)
            self._wake()
        if due:
            return _SOON
        if found:
            return _TROUBLE
        self._next_ms = next_ms = await self._unit.store.next_due(list(self._owned))
        return None if next_ms is None else max(0.0, (next_ms - self._clock.now_ms()) / 1000)

    def _leave(self, found: Sequence[Timer]) -> None:
        """Leave alone, and tell once, what has no handler here: other instances may be of a version that has it."""
        for timer in found:
            if timer.handler not in self._handlers and timer.timer_id not in self._left:
                self._left.add(timer.timer_id)
                _log.warning(
                    "a timer waits for a handler that is not there (any more)",
                    service=self._service, handler=timer.handler, due_ms=timer.due_ms,
                )  # fmt: skip

    async def _place(self, timer: Timer) -> None:
        partition = self._owned.get(timer.at)
        if partition is None or partition.leaving.is_set():
            return
        if partition.haunted >= _DEADLY:
            self._detour(partition, timer)
            return
        job = await self._decoder.timer(partition, timer)
        if partition.gone or (job is not None and self._lanes.is_open(job.lane)):
            return
        if job is None:
            _log.error(
                "the event of a timer cannot be read (any more)", service=self._service, handler=timer.handler,
                due_ms=timer.due_ms, record=f"{timer.record.topic}/{timer.record.partition}@{timer.record.offset}",
            )  # fmt: skip
            if self._unit.add(partition, timer.record.offset, ()):
                self._unit.unset(timer.timer_id)
            return
        self._placed.add((partition.at, timer.timer_id))
        self._lanes.add(job.lane, job)

    # --- what owners have died of ---------------------------------------------------------------------------------

    def _lay_ghosts(self, busy: Collection[TopicPartition]) -> None:
        """Partitions whose due timers are all done: it was none of these."""
        for at, partition in self._owned.items():
            if partition.haunted and at not in busy:
                partition.haunted = 0
                self._unit.survive(partition)

    def _detour(self, partition: Partition, timer: Timer) -> None:
        """Owners have died again and again, maybe of this call: let it come as a record, whose deaths are counted one by one."""
        this = partition.epoch, timer.timer_id
        if this in self._detoured:  # the commit is under way
            return
        now_ms = self._clock.now_ms()
        record = retry_record(
            self._service, timer.record, handler=timer.handler, attempt=0, due_ms=0, first_failed_ms=now_ms
        )
        if self._unit.add(partition, timer.record.offset, [record]):
            self._unit.unset(timer.timer_id)
            self._detoured.add(this)
            _log.warning(
                "owners of this partition have died again and again: a deadline is called through the retry topic",
                service=self._service, handler=timer.handler, due_ms=timer.due_ms, deaths=partition.haunted,
            )  # fmt: skip

    # --- what may still stop them ---------------------------------------------------------------------------------

    async def _is_handled(self, due_ms: int) -> bool:
        """Whether everything that can stop a timer of this time, and was in the log at some moment since, is handled."""
        if not self._topics or due_ms <= self._horizon_ms:
            return True
        if self._ends is None or self._ends[0] < due_ms:
            self._ends = self._clock.now_ms(), await self._log_ends()
        asked_ms, ends = self._ends
        if lagging := await self._lagging(ends):
            self._say(lagging)
            return False
        self._horizon_ms, self._ends = asked_ms, None
        return True

    async def _log_ends(self) -> dict[TopicPartition, int]:
        known = await self._source.topics()
        partitions = [
            TopicPartition(name, number)
            for name in self._topics & known.keys()
            for number in range(known[name].partitions)
        ]
        first = await self._source.beginning_offsets(partitions)
        ends = await self._source.end_offsets(partitions)
        return {at: end for at, end in ends.items() if end > first[at]}

    async def _lagging(self, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
        """Those of which not all before these offsets is handled."""
        known = await self._unit.store.watermarks(list(ends))  # of ours too: what is not committed may be undone
        return [at for at, end in ends.items() if known.get(at, -1) < end]

    def _say(self, lagging: list[TopicPartition]) -> None:
        now_ms = self._clock.now_ms()
        if not self._said_ms:
            self._said_ms = now_ms
        elif now_ms - self._said_ms > _SAID:
            names = ", ".join(f"{topic}/{partition}" for topic, partition in lagging)
            _log.warning(
                "deadlines wait: events that may stop them are not handled yet", service=self._service, partitions=names
            )
            self._said_ms = now_ms
