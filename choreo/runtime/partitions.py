"""The partitions an instance owns, and the jobs that come from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from choreo.events import Event, Metadata
from choreo.log.port import NewRecord, Record, TopicPartition
from choreo.runtime.offsets import OffsetTracker
from choreo.service import Handler
from choreo.store.port import Progress


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
    """

    __slots__ = ("_idle", "at", "epoch", "gone", "leaving", "running", "staged", "tracker")

    def __init__(self, at: TopicPartition, progress: Progress) -> None:
        self.at = at
        self.epoch = progress.epoch
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


class Task(NamedTuple):
    """One handler's share of a job."""

    handler: Handler
    inbox_key: bytes


class Job:
    """One record on its way through the handlers of this service.

    Attributes:
        tasks: the handlers that have not done it yet.
        recheck: whether a copy of this event was under way when it was taken in, so the inbox must be asked again.
    """

    __slots__ = ("event", "metadata", "partition", "recheck", "record", "tasks")

    def __init__(
        self, partition: Partition, record: Record, metadata: Metadata, event: Event, tasks: Sequence[Task]
    ) -> None:
        self.partition = partition
        self.record = record
        self.metadata = metadata
        self.event = event
        self.tasks = tasks
        self.recheck = False
