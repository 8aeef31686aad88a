"""From records to jobs: decoding, the inbox, and the lane each job waits in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import structlog

from choreo.errors import ConfigurationError, RegistryUnavailableError, SchemaNotCachedError
from choreo.events import Event, Metadata
from choreo.log.port import Record, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.deadletter import Failed, dead_letter, said
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job, Partition, Task
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork
from choreo.service import Handler, Service
from choreo.wire import Codec
from choreo.wire.ids import inbox_key

_log = structlog.get_logger("choreo.runtime")
_FIRST_DELAY, _MAX_DELAY = 0.2, 10.0


class Route(NamedTuple):
    """What a service does with one event type."""

    event_class: type[Event]
    handlers: tuple[Handler, ...]


def routes_of(service: Service) -> dict[str, Route]:
    """The routes of a service, by event type name."""
    classes = {event.contract.type_name: event for handler in service.handlers.values() for event in handler.consumes}
    return {
        name: Route(event, tuple(handler for handler in service.handlers.values() if event in handler.consumes))
        for name, event in classes.items()
    }


class Intake:
    """Takes records in. One call of `accept` at a time.

    Args:
        owned: the partitions this instance owns, changed by others while a call waits.
    """

    def __init__(
        self,
        service: Service,
        *,
        codec: Codec,
        unit: UnitOfWork,
        lanes: Lanes[Job],
        owned: Mapping[TopicPartition, Partition],
        clock: Clock,
        stats: Stats,
        max_record_bytes: int,
    ) -> None:
        self._service = service.name
        self._transactional = service.transactional
        self._routes = routes_of(service)
        self._codec = codec
        self._unit = unit
        self._lanes = lanes
        self._owned = owned
        self._clock = clock
        self._stats = stats
        self._max_bytes = max_record_bytes
        self._under_way: dict[bytes, Hashable] = {}  # inbox key -> lane, from intake to commit

    async def accept(self, records: Sequence[Record]) -> None:
        """Turn records into jobs in their lanes; what needs no handler is done at once."""
        jobs = []
        for record in records:
            partition = self._owned.get(TopicPartition(record.topic, record.partition))
            if partition is None or not partition.tracker.deliver(record.offset):
                continue
            job = await self._read(partition, record)
            if job is None:
                self._unit.finish(partition, record.offset)
            else:
                jobs.append(job)
        seen = await self._unit.store.seen([task.inbox_key for job in jobs for task in job.tasks])
        for job in jobs:
            if not job.partition.gone:
                self._place(job, seen)

    def forget(self, keys: Sequence[bytes]) -> None:
        """These inbox keys are committed."""
        for key in keys:
            self._under_way.pop(key, None)

    def forget_all(self) -> None:
        """Everything under way was given up."""
        self._under_way.clear()

    # --- decoding -------------------------------------------------------------------------------------------------

    async def _read(self, partition: Partition, record: Record) -> Job | None:
        """The job for a record; None if no handler wants it or none can have it (then it is a dead letter)."""
        delay = _FIRST_DELAY
        while True:
            try:
                try:
                    return self._decode(partition, record)
                except SchemaNotCachedError as missing:
                    await self._codec.load(missing.schema_id)
                    continue
            except (RegistryUnavailableError, ConfigurationError) as error:
                _log.warning("waiting for the registry", service=self._service, error=str(error), delay=round(delay, 1))
            except Exception as error:  # noqa: BLE001 - a validator of the event class may raise what it likes
                self._give_up(partition, record, error)
                return None
            await self._clock.sleep(delay * (0.5 + self._clock.random() / 2))
            if partition.gone:
                return None
            delay = min(_MAX_DELAY, delay * 2)

    def _decode(self, partition: Partition, record: Record) -> Job | None:
        metadata = self._codec.metadata(record)
        route = self._routes.get(metadata.type_name or self._codec.type_of(record, metadata))
        if route is None:
            return None
        event = self._codec.decode(record, route.event_class)
        return Job(partition, record, metadata, event, self._tasks(route, metadata))

    def _tasks(self, route: Route, metadata: Metadata) -> list[Task]:
        if self._transactional:  # it has no inbox
            return [Task(handler, b"") for handler in route.handlers]
        return [
            Task(handler, inbox_key(metadata.source, metadata.event_id, handler.name)) for handler in route.handlers
        ]

    def _give_up(self, partition: Partition, record: Record, error: Exception) -> None:
        if partition.gone:
            return
        now_ms, place = self._clock.now_ms(), f"{record.topic}/{record.partition}@{record.offset}"
        failed = Failed(
            service=self._service, handler="", stage="decode", kind="undecodable", error=error, attempts=1,
            first_failed_ms=now_ms, now_ms=now_ms, subject=place,
        )  # fmt: skip
        self._unit.add(partition, record.offset, [dead_letter(record, failed, self._max_bytes)])
        self._stats.dead_letters += 1
        _log.error(
            "record cannot be read, goes to the dead letters",
            service=self._service, record=place, error=said(error),
        )  # fmt: skip

    # --- the inbox ------------------------------------------------------------------------------------------------

    def _place(self, job: Job, seen: set[bytes]) -> None:
        """Put a job into its lane, without the handlers that have done this event before."""
        if seen:
            fresh = [task for task in job.tasks if task.inbox_key not in seen]
            self._stats.duplicates += len(job.tasks) - len(fresh)
            job.tasks = fresh
        if not job.tasks:
            self._unit.finish(job.partition, job.record.offset)
            return
        lane: Hashable = (job.partition.at, job.record.key)
        for task in () if self._transactional else job.tasks:
            # A copy of an event that is under way waits in the same lane, and asks the inbox again when it comes up.
            earlier = self._under_way.setdefault(task.inbox_key, lane)
            if earlier is not lane:
                job.recheck, lane = True, earlier
        self._lanes.add(lane, job)
