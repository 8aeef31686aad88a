"""Lanes: one key's ordered queue in a worker. Pure.

A lane's first job is the only one that may run; lanes with work take turns, so a hot key cannot starve the others. A lane
whose first job waits (for another attempt) is deferred, and takes no turns until it is resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from typing import Generic, TypeVar

J = TypeVar("J")


class Lanes(Generic[J]):
    """The waiting and running jobs of a worker, by key.

    Args:
        count: how many some jobs count for, where one may count for several.

    Attributes:
        deferred_jobs: how many jobs are in deferred lanes.
    """

    __slots__ = ("_count", "_deferred", "_lanes", "_ready", "deferred_jobs")

    def __init__(self, count: Callable[[Collection[J]], int] = len) -> None:
        self._count = count
        self._lanes: dict[Hashable, deque[J]] = {}
        self._ready: deque[Hashable] = deque()
        self._deferred: set[Hashable] = set()
        self.deferred_jobs = 0

    def add(self, key: Hashable, job: J) -> None:
        """Put a job behind the others of its key."""
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((job,))
            self._ready.append(key)
        else:
            lane.append(job)
            if key in self._deferred:
                self.deferred_jobs += self._count((job,))

    def grew(self, key: Hashable) -> None:
        """A waiting job of this lane counts for one more."""
        self.deferred_jobs += key in self._deferred

    def take(self) -> tuple[Hashable, J] | None:
        """The next job that may run; its lane is closed until `done`. None if there is none."""
        if not self._ready:
            return None
        key = self._ready.popleft()
        return key, self._lanes[key][0]

    def done(self, key: Hashable) -> None:
        """The running job of this lane has ended; the lane queues up again behind the others."""
        lane = self._lanes[key]
        lane.popleft()
        if lane:
            self._ready.append(key)
        else:
            del self._lanes[key]

    def defer(self, key: Hashable) -> None:
        """The running job of this lane has to wait, and the lane with it."""
        self._deferred.add(key)
        self.deferred_jobs += self._count(self._lanes[key])

    def resume(self, key: Hashable) -> bool:
        """This lane need not wait any more; says whether it did."""
        if key not in self._deferred:
            return False
        self._deferred.remove(key)
        self.deferred_jobs -= self._count(self._lanes[key])
        self._ready.append(key)
        return True

    def is_open(self, key: Hashable) -> bool:
        """Whether this lane has a job."""
        return key in self._lanes

    def is_moving(self, key: Hashable) -> bool:
        """Whether this lane has a job that runs or could run."""
        return key in self._lanes and key not in self._deferred

    def jobs(self) -> Iterator[J]:
        """All of them, those that run too."""
        for lane in tuple(self._lanes.values()):
            yield from lane

    def states(self) -> dict[str, int]:
        """How many lanes there are: ready, running, deferred."""
        ready, deferred = len(self._ready), len(self._deferred)
        return {"ready": ready, "running": len(self._lanes) - ready - deferred, "deferred": deferred}

    def drop(self, unwanted: Callable[[J], bool]) -> list[J]:
        """Take out the jobs that match and do not run."""
        dropped: list[J] = []
        ready = set(self._ready)
        for key, lane in list(self._lanes.items()):
            first = lane[0]
            running = 0 if key in ready or key in self._deferred else 1
            waiting = list(lane)[running:]
            dropped += [job for job in waiting if unwanted(job)]
            kept = [*list(lane)[:running], *(job for job in waiting if not unwanted(job))]
            if kept:
                self._lanes[key] = deque(kept)
            else:
                del self._lanes[key]
            if key in self._deferred and kept[:1] != [first]:
                self._deferred.remove(key)
                self._ready.append(key)
        self._ready = deque(key for key in self._ready if key in self._lanes)
        self.deferred_jobs = sum(self._count(self._lanes[key]) for key in self._deferred)
        return dropped

    @property
    def is_quiet(self) -> bool:
        """Whether no job runs or could run now."""
        return len(self._lanes) == len(self._deferred)

    @property
    def has_ready(self) -> bool:
        """Whether a job could run now."""
        return bool(self._ready)
