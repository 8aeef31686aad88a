"""The partitions an instance owns, and the jobs that come from them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from choreo.events import Event, Metadata
from choreo.handler import Handler
from choreo.log.port import NewRecord, Record, TopicPartition
from choreo.runtime.offsets import OffsetTracker
from choreo.runtime.parking import Returned
from choreo.runtime.sagas.memory import Memory
from choreo.store.port import Progress, Timer

if TYPE_CHECKING:
    from choreo.observe.tracing import Trace

NO_OFFSET = -1
"""The offset of a job that no record is waiting for."""


class AbandonedError(BaseException):
    """Unwinds a handler whose partition is no longer ours: its record is handled again by the next owner.

    Not an `Exception`, so that a handler's own `except Exception` cannot swallow it.
    """


class Partition:
    """One partition during one ownership.

    Attributes:
        leaving: set when it is about to go: running handlers may finish, no other starts.
        gone: nothing that comes from it counts any more.
        running: how many of its jobs are under way.
        staged: what handlers have emitted for records that others of the service's handlers have not done yet, by
            offset; of transactional services only.
        deadly_until: one of the records below this offset may have killed earlier owners; -1 if there is no suspicion.
        alone: whether they are handled alone.
        haunted: how many owners in a row died here; 0 as soon as no timer can be the reason.
        suspects: offsets that were handled alone when an owner died, and how often.
    """

    __slots__ = (
        *(
            "_idle",
            "alone",
            "at",
            "deadly_until",
            "epoch",
            "gone",
            "haunted",
            "leaving",
            "running",
            "staged",
            "suspects",
            "tracker",
        ),
    )

    def __init__(self, at: TopicPartition, progress: Progress) -> None:
        self.at = at
        self.epoch = progress.epoch
        self.deadly_until = -1
        self.alone = False
        self.haunted = 0
        self.suspects = progress.suspects
        self.tracker = OffsetTracker(progress.watermark, progress.done)
        self.leaving = asyncio.Event()
        self.gone = False
        self.running = 0
        self.staged: dict[int, list[NewRecord]] = {}
        self._idle: asyncio.Future[None] | None = None

    def progress(self) -> Progress:
        """What the store should know of it now."""
        return Progress(self.tracker.watermark, self.tracker.done, self.epoch)

    def abandon(self) -> None:
        """Let nothing that comes from it count any more."""
        self.gone = True
        self.leaving.set()

    def end_job(self) -> None:
        """One of its jobs has ended."""
        self.running -= 1
        if not self.running and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def idle(self) -> None:
        """Wait until none of its jobs is under way."""
        while self.running:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle


class Task:
    """One handler's share of a job.

    Attributes:
        inbox_key: empty where there is no inbox, or none is needed.
        held: what the handler has to remember as long as the job is under way; none if that has not been read.
    """

    __slots__ = ("handler", "held", "inbox_key")

    def __init__(self, handler: Handler, inbox_key: bytes) -> None:
        self.handler = handler
        self.inbox_key = inbox_key
        self.held: tuple[Memory, ...] = ()


class Failing:
    """One handler's failed calls for one record.

    Attributes:
        calls: how many there were.
        attempts: how many of them count; those that failed while a circuit breaker was open do not.
        first_ms: when the first one failed, ms since the epoch.
    """

    __slots__ = ("attempts", "calls", "first_ms")

    def __init__(self, attempts: int, first_ms: int) -> None:
        self.attempts = self.calls = attempts
        self.first_ms = first_ms


class Back:
    """What is known of a job that has waited: it came through the retry topic, or waited behind a parked key.

    Attributes:
        said: what the record of the retry topic says; None for one that waited behind a parked key.
        ended: names of the handlers that have done it, so that what waits behind it can go on.
        waiting: what waits behind it, as far as it is read: sequence numbers and jobs (None: nothing is to be done).
    """

    __slots__ = ("ended", "said", "waiting")

    def __init__(self, said: Returned | None, ended: Sequence[str]) -> None:
        self.said = said
        self.ended = deque(ended)
        self.waiting: deque[tuple[int, Job | None]] = deque()

    def is_for(self, handler: str) -> bool:
        """Whether it came through the retry topic for this handler alone."""
        return self.said is not None and self.said.handler == handler


class Job:
    """One record on its way through the handlers of this service.

    Attributes:
        record: as its producer wrote it.
        tasks: the handlers that it came for.
        left: those that have not done it yet.
        lane: where it waits.
        offset: the record's place in the partition that it was read from.
        recheck: whether a copy of this event was under way when it was taken in, so the inbox must be asked again.
        failing: failed calls, by handler; None if there are none.
        back: None for a record that comes straight from its topic.
        timer: what let it happen; None for a record.
        traces: the spans under way, by handler; None if there were none.
    """

    __slots__ = (
        *("back", "event", "failing", "lane", "left", "metadata", "offset", "partition", "recheck", "record"),
        *("tasks", "timer", "traces"),
    )

    def __init__(
        self,
        partition: Partition,
        record: Record,
        metadata: Metadata,
        event: Event,
        tasks: Sequence[Task],
        lane: Hashable,
        back: Back | None = None,
    ) -> None:
        self.partition = partition
        self.record = record
        self.metadata = metadata
        self.event = event
        self.tasks = self.left = tasks
        self.lane = lane
        self.offset = record.offset
        self.recheck = False
        self.failing: dict[str, Failing] | None = None
        self.back = back
        self.timer: Timer | None = None
        self.traces: dict[str, Trace] | None = None

    def trace(self, handler: Handler) -> Trace | None:
        """The span of this handler, if one is under way."""
        return self.traces.get(handler.name) if self.traces is not None else None

    def forget(self) -> None:
        """Forget what its handlers have to remember as long as it is under way."""
        for task in self.tasks:
            task.held = ()
        self.abandon_traces()

    def abandon_traces(self) -> None:
        """Spans that are still under way end without an outcome."""
        if self.traces is not None:
            for trace in self.traces.values():
                trace.abandon()
            self.traces = None
        for _, follower in self.back.waiting if self.back is not None else ():
            if follower is not None:
                follower.abandon_traces()


def identity(job: Job, handler: Handler) -> dict[str, Any]:
    """The ids that every log line about a handler run carries."""
    record, metadata = job.record, job.metadata
    return {
        "service": handler.service,
        "handler": handler.name,
        "event_type": metadata.type_name if job.event is None else job.event.contract.type_name,
        "event_id": metadata.event_id,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id,
        "record": f"{record.topic}/{record.partition}@{record.offset}",
        **(trace.ids if (trace := job.trace(handler)) is not None else {}),
    }
