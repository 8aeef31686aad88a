"""Lanes: one key's ordered queue in a worker. Pure.

A lane's first job is the only one that may run; lanes with work take turns, so a hot key cannot starve the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

J = TypeVar("J")


class Lanes(Generic[J]):
    """The waiting and running jobs of a worker, by key."""

    __slots__ = ("_lanes", "_ready")

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[J]] = {}
        self._ready: deque[Hashable] = deque()

    def add(self, key: Hashable, job: J) -> None:
        """Put a job behind the others of its key."""
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((job,))
            self._ready.append(key)
        else:
            lane.append(job)

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

    def drop(self, unwanted: Callable[[J], bool]) -> list[J]:
        """Take out the jobs that match and do not run."""
        dropped: list[J] = []
        ready = set(self._ready)
        for key, lane in list(self._lanes.items()):
            running = 0 if key in ready else 1
            waiting = list(lane)[running:]
            dropped += [job for job in waiting if unwanted(job)]
            kept = [*list(lane)[:running], *(job for job in waiting if not unwanted(job))]
            if kept:
                self._lanes[key] = deque(kept)
            else:
                del self._lanes[key]
        self._ready = deque(key for key in self._ready if key in self._lanes)
        return dropped

    @property
    def has_ready(self) -> bool:
        """Whether a job could run now."""
        return bool(self._ready)
