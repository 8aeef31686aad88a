"""From records to jobs; what cannot be read becomes a dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Sequence
from typing import Any, NamedTuple

import structlog

from choreo.choreography import retry_topic
from choreo.errors import ConfigurationError, DecodeError, RegistryUnavailableError, SchemaNotCachedError
from choreo.events import Event, Metadata
from choreo.handler import Batch, Deadline, Handler
from choreo.log.port import Record, TopicPartition
from choreo.runtime.batches.job import group_of
from choreo.runtime.clock import Clock
from choreo.runtime.deadletter import Failed, dead_letter, said
from choreo.runtime.parking import Returned, lane_of, returned
from choreo.runtime.partitions import NO_OFFSET, Back, Failing, Job, Partition, Task
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork
from choreo.service import Service
from choreo.store.port import Park, Timer
from choreo.wire import Codec
from choreo.wire.ids import inbox_key

_log = structlog.get_logger("choreo.runtime")
_FIRST_DELAY, _MAX_DELAY = 0.2, 10.0


class KillerError(Exception):
    """Why a record is a dead letter that was never handled to its end."""


class Reaction(NamedTuple):
    """What a service does with one event type.

    Attributes:
        ordered: whether one of the handlers needs the order of its keys.
        bare: the tasks of all its records where there is no inbox.
        batched: the only handler, if it takes batches.
    """

    event_class: type[Event]
    handlers: tuple[Handler, ...]
    ordered: bool
    bare: tuple[Task, ...]
    batched: Handler | None = None


def reactions_of(service: Service) -> dict[str, Reaction]:
    """The reactions of a service, by event type name."""
    classes = {event.contract.type_name: event for handler in service.handlers.values() for event in handler.consumes}
    reactions = {}
    for name, event in classes.items():
        handlers = tuple(handler for handler in service.handlers.values() if event in handler.consumes)
        bare = tuple(Task(handler, b"") for handler in handlers)
        batched = handlers[0] if isinstance(handlers[0].rule, Batch) else None
        reactions[name] = Reaction(event, handlers, any(handler.ordered for handler in handlers), bare, batched)
    return reactions


class Decoder:
    """Makes the jobs of one service instance."""

    def __init__(
        self, service: Service, *, codec: Codec, unit: UnitOfWork, clock: Clock, stats: Stats, max_record_bytes: int
    ) -> None:
        self._service = service.name
        self._has_inbox = not service.transactional
        self._retry_topic = retry_topic(service.name)
        self._reactions = reactions_of(service)
        self._codec = codec
        self._unit = unit
        self._clock = clock
        self._stats = stats
        self._max_bytes = max_record_bytes

    def job(self, partition: Partition, record: Record) -> Awaitable[Job | None]:
        """The job for a record; None if no handler wants it or none can have it (then it is a dead letter)."""
        return self._patiently(partition, record, self._job)

    async def follower(self, owner: Job, record: Record, name: str) -> Job | None:
        """The job of the handler of this name for a record that waits behind the one of `owner`; None as in `job`."""

        def decode(partition: Partition, record: Record) -> Job | None:
            metadata, reaction = self._reaction(record)
            handlers = [handler for handler in reaction.handlers if handler.name == name] if reaction else []
            if reaction is None or not handlers:
                return None
            event = self._codec.decode(record, reaction.event_class)
            tasks = self._tasks(handlers, metadata)
            job = Job(partition, record, metadata, event, tasks, owner.lane, Back(None, [name]))
            job.offset = owner.offset
            return job

        return await self._patiently(owner.partition, record, decode)

    async def timer(self, partition: Partition, timer: Timer) -> Job | None:
        """The job for what is to happen now; None if its event cannot be read or its handler is not there (any more)."""

        def decode(partition: Partition, record: Record) -> Job | None:
            metadata, reaction = self._reaction(record)
            handlers = [handler for handler in reaction.handlers if handler.name == timer.handler] if reaction else []
            if reaction is None or not handlers:
                return None
            event = self._codec.decode(record, reaction.event_class)
            # No inbox: what is known of the timer says whether it is called, and it may be looked at once more than called.
            tasks = [Task(handlers[0], b"")]
            job = Job(partition, record, metadata, event, tasks, (partition.at, timer.timer_id))
            job.offset, job.timer = NO_OFFSET, timer
            return job

        return await self._patiently(partition, timer.record, decode)

    async def _patiently(self, partition: Partition, record: Record, decode: Any) -> Job | None:
        delay = _FIRST_DELAY
        while True:
            try:
                try:
                    job: Job | None = decode(partition, record)
                    return job
                except SchemaNotCachedError as missing:
                    await self._codec.load(missing.schema_id)
                    continue
            except (RegistryUnavailableError, ConfigurationError) as error:
                _log.warning(
                    "waiting for the registry", service=self._service, record=_place(record), error=str(error),
                    delay=round(delay, 1),
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - a validator of the event class may raise what it likes
                self._give_up(partition, record, error)
                return None
            await self._clock.sleep(delay * (0.5 + self._clock.random() / 2))
            if partition.gone:
                return None
            delay = min(_MAX_DELAY, delay * 2)

    def _reaction(self, record: Record) -> tuple[Metadata, Reaction | None]:
        metadata = self._codec.metadata(record)
        return metadata, self._reactions.get(metadata.type_name or self._codec.type_of(record, metadata))

    def _job(self, partition: Partition, record: Record) -> Job | None:
        if record.topic == self._retry_topic:
            return self._returned(partition, record)
        metadata, reaction = self._reaction(record)
        if reaction is None:
            return None
        event = self._codec.decode(record, reaction.event_class)
        lane: Hashable
        if reaction.batched is None:
            lane = (partition.at, record.key if record.key is not None and reaction.ordered else record.offset)
        else:
            lane = group_of(partition.at, reaction.batched, record)
        tasks = self._tasks(reaction.handlers, metadata) if self._has_inbox else reaction.bare
        return Job(partition, record, metadata, event, tasks, lane)

    def _returned(self, partition: Partition, record: Record) -> Job:
        """The job for a record of the retry topic. One that is discarded needs no handler, only lets its key go.

        Raises:
            DecodeError: it cannot be read, or the handler that it is for is not there any more.
        """
        told = returned(record)
        original = told.record
        metadata, reaction = self._reaction(original)
        handlers = [h for h in (reaction.handlers if reaction else ()) if told.handler in {"", h.name}]
        if not told.discard and (reaction is None or not handlers):
            raise DecodeError(
                f"service {self._service!r} has no handler {told.handler!r} for {metadata.type_name!r} (any more)",
                remedy="bring the handler back before redriving",
            )
        event: Any = None if told.discard or reaction is None else self._codec.decode(original, reaction.event_class)
        ordered = original.key is not None and (not told.handler or not handlers or handlers[0].ordered)
        place: Hashable = (told.handler, original.topic, original.key) if ordered else record.offset
        back = Back(told, [told.handler] if told.handler else [handler.name for handler in handlers])
        tasks = self._tasks(handlers, metadata)
        if told.handler and handlers and isinstance(handlers[0].rule, Deadline):
            # Its event has set the timer long ago; this is a call, and there may be several.
            call = f"{told.handler}#{told.first_failed_ms}.{told.attempt}.{told.due_ms}.{told.redrives}"
            tasks = [Task(handlers[0], inbox_key(metadata.source, metadata.event_id, call))]
        job = Job(partition, original, metadata, event, tasks, (partition.at, place), back)
        job.offset = record.offset
        now_ms = self._clock.now_ms()
        first_ms = now_ms if told.redrives else told.first_failed_ms
        job.failing = {handler.name: Failing(told.attempt, first_ms) for handler in handlers}
        return job

    def _tasks(self, handlers: Sequence[Handler], metadata: Metadata) -> list[Task]:
        if not self._has_inbox:
            return [Task(handler, b"") for handler in handlers]
        return [Task(handler, inbox_key(metadata.source, metadata.event_id, handler.name)) for handler in handlers]

    # --- dead letters that no handler has made --------------------------------------------------------------------

    def _give_up(self, partition: Partition, record: Record, error: Exception) -> None:
        self._bury(partition, record, _told(record, self._retry_topic), error, kind="undecodable")

    def bury_killer(self, partition: Partition, record: Record, deaths: int) -> None:
        """A record at which owners have died becomes a dead letter; its key waits."""
        error = KillerError(f"the process died {deaths} times while it handled this record alone")
        told = _told(record, self._retry_topic)
        original = told.record if told else record
        try:
            metadata, reaction = self._reaction(original)
        except Exception:  # noqa: BLE001 - nobody can read it, so nobody parks its key
            self._bury(partition, record, told, error, kind="killer")
            return
        parks = [
            Park(
                lane_of(handler.name, original.topic, original.key),
                *(TopicPartition(original.topic, original.partition), metadata.event_id, handler.name, original.key),
            )
            for handler in (reaction.handlers if reaction and not told else ())
            if handler.ordered and original.key is not None
        ]
        self._bury(partition, record, told, error, kind="killer", parked=bool(parks or told))
        for park in parks:
            self._unit.park(park)

    def _bury(
        self,
        partition: Partition,
        record: Record,
        told: Returned | None,
        error: Exception,
        *,
        kind: Any,
        parked: bool = False,
    ) -> None:
        if partition.gone:
            return
        original = told.record if told else record
        now_ms, place = self._clock.now_ms(), _place(original)
        failed = Failed(
            service=self._service, handler=told.handler if told else "",
            stage="decode" if kind == "undecodable" else "handle", kind=kind, error=error, attempts=1,
            first_failed_ms=told.first_failed_ms if told else now_ms, now_ms=now_ms, subject=place,
            redrives=told.redrives if told else 0, parked=parked,
        )  # fmt: skip
        self._unit.add(partition, record.offset, [dead_letter(original, failed, self._max_bytes)])
        self._stats.bury(failed.handler, kind)
        what = "record cannot be read" if kind == "undecodable" else "record kills the process"
        about = {"service": self._service, "handler": failed.handler, **self._ids(original)}
        _log.error(f"{what}, goes to the dead letters", **about, record=place, kind=kind, error=said(error))

    def _ids(self, record: Record) -> dict[str, str | None]:
        """The ids of an event, as far as they can be read."""
        try:
            metadata = self._codec.metadata(record)
        except DecodeError:
            return {}
        return {name: getattr(metadata, name) for name in ("event_id", "correlation_id", "causation_id")}


def _place(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"


def _told(record: Record, retry_topic: str) -> Returned | None:
    try:
        return returned(record) if record.topic == retry_topic else None
    except DecodeError:
        return None
