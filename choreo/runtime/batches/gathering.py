"""Gathering the events of one handler into batches. Pure.

A batch *waits* until it is full or its oldest event has waited long enough. Then it stands in its lane, and goes on
*growing* until it is called: where the handler is slower than events come, batches become larger by themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from choreo.runtime.batches.job import BatchJob
from choreo.runtime.partitions import Job


class Gathering:
    """The open batches of one handler, at most one for each lane.

    Args:
        max_size: how many events make a batch full.
        max_age_ms: how long the first event of one waits.

    Attributes:
        gathered: how many events are in batches that wait.
    """

    def __init__(self, max_size: int, max_age_ms: int) -> None:
        self._max_size = max_size
        self._max_age_ms = max_age_ms
        self._waiting: OrderedDict[Hashable, BatchJob] = OrderedDict()  # the oldest first
        self._growing: dict[Hashable, BatchJob] = {}
        self.gathered = 0

    def join(self, lane: Hashable, job: Job) -> bool:
        """Add an event to the batch that stands in this lane, if one does and may grow."""
        batch = self._growing.get(lane)
        if batch is None:
            return False
        batch.add(job)
        if batch.unfinished >= self._max_size:
            del self._growing[lane]
        return True

    def add(self, lane: Hashable, job: Job, now_ms: int) -> BatchJob | None:
        """Add an event to the batch that waits for this lane; returns it if it is full now."""
        batch = self._waiting.get(lane)
        if batch is None:
            batch = self._waiting[lane] = BatchJob(job, lane, now_ms + self._max_age_ms)
        else:
            batch.add(job)
        self.gathered += 1
        if batch.unfinished < self._max_size:
            return None
        self._stand(lane)
        del self._growing[lane]
        return batch

    def due(self, now_ms: int) -> list[BatchJob]:
        """The batches that have waited long enough; they wait no more."""
        ready = []
        while self._waiting and not self._wait(now_ms):
            ready.append(self._stand(next(iter(self._waiting))))
        return ready

    def next_ms(self, now_ms: int) -> int | None:
        """Milliseconds until a batch is due; None if none waits."""
        return self._wait(now_ms) if self._waiting else None

    def _wait(self, now_ms: int) -> int:
        wait = next(iter(self._waiting.values())).due_ms - now_ms
        return wait if 0 < wait <= self._max_age_ms else 0  # longer ones come from a clock that was set back

    def release(self, lane: Hashable) -> BatchJob | None:
        """The batch that waits for this lane, if there is one; it waits no more."""
        return self._stand(lane) if lane in self._waiting else None

    def sizes(self) -> list[tuple[Hashable, int]]:
        """The lanes whose batches wait, with their sizes."""
        return [(lane, batch.unfinished) for lane, batch in self._waiting.items()]

    def jobs(self) -> Iterator[BatchJob]:
        """The batches that wait."""
        return iter(tuple(self._waiting.values()))

    def close(self, batch: BatchJob) -> None:
        """This batch is called: it grows no more."""
        if self._growing.get(batch.lane) is batch:
            del self._growing[batch.lane]

    def drop(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Forget the batches that match; returns the events of those that waited, the others stand in their lanes."""
        dropped = [batch for batch in self._waiting.values() if unwanted(batch)]
        for batch in dropped:
            del self._waiting[batch.lane]
            self.gathered -= batch.unfinished
        for batch in [batch for batch in self._growing.values() if unwanted(batch)]:
            del self._growing[batch.lane]
        return [job for batch in dropped for job in batch.rest]

    def _stand(self, lane: Hashable) -> BatchJob:
        batch = self._growing[lane] = self._waiting.pop(lane)
        self.gathered -= batch.unfinished
        return batch
