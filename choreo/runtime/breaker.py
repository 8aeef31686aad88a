"""Circuit breakers: when most calls of a handler fail, its records wait in their lanes instead of becoming dead letters."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import structlog

from choreo.handler import Handler
from choreo.runtime.clock import Clock
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job

_log = structlog.get_logger("choreo.runtime")
_RECORDS = 50
"""How many records, the last ones, are looked at."""
_MOST = 0.8
"""The share of them that must have failed: where many calls still go well, retries and dead letters are better."""
_LEAST_CALLS, _LEAST_KEYS = 20, 5
"""It takes so many calls, and failures of so many keys, to open: one poison key is no sign of an outage."""
_FIRST_DELAY, _MAX_DELAY = 1.0, 30.0
_PROBES, _GOOD_PROBES = 5, 3
"""How many calls go through at once while it is open, and how many must have ended well to close it: several, because
records that fail for themselves must not keep the others waiting."""


class Breaker:
    """The state of one handler's breaker. Pure.

    Each record counts once, by its last call and at the place of its first, so that retries of a few bad ones do not
    outweigh the good.

    Attributes:
        is_open: whether calls wait.
        delay: seconds until calls are let through again; grows while none of them ends well.
        probing: the lanes whose calls go through though it is open.
    """

    def __init__(self) -> None:
        self._last: dict[str, Hashable] = {}  # event -> key if it failed, None if it did not
        self._calls = 0
        self._good, self._seen_good, self._seen_bad = 0, False, False
        self._fresh: dict[Hashable, None] = {}  # lanes that wait, longest first; of these no record has failed yet
        self._failed: dict[Hashable, None] = {}
        self._failed_first = self._tried_fresh = False
        self.is_open = False
        self.delay = _FIRST_DELAY
        self.probing: set[Hashable] = set()

    def note(self, event_id: str, failing_key: Hashable, *, again: bool = False, calls: int = 1) -> bool:
        """A call has ended, well if the key is None; `again`: it was not the record's first. Says whether the breaker opens.

        `calls`: how many there were, if several are noted in one go.
        """
        if again and event_id not in self._last:
            return False
        self._last[event_id] = failing_key
        self._calls += calls
        if len(self._last) > _RECORDS:
            del self._last[next(iter(self._last))]
        failing = [key for key in self._last.values() if key is not None]
        most = len(failing) >= _MOST * len(self._last)
        many = self._calls >= _LEAST_CALLS and len(set(failing)) >= _LEAST_KEYS
        self.is_open = failing_key is not None and many and most  # what ends well opens nothing, whatever was before
        return self.is_open

    @property
    def is_calm(self) -> bool:
        """Whether none of the last records has failed."""
        return not any(key is not None for key in self._last.values())

    def hold(self, lane: Hashable, *, failed: bool) -> None:
        """Let a lane wait; `failed`: whether a call for its record has."""
        if not self.holds(lane):
            (self._failed if failed else self._fresh)[lane] = None

    def holds(self, lane: Hashable) -> bool:
        """Whether a lane waits."""
        return lane in self._fresh or lane in self._failed

    def release(self) -> Hashable | None:
        """The lane to let go next: one that has never failed, unless those of the last round did: then one that has.

        What fails for itself must not keep the others waiting; and each may fail at its first call and do well at the next.
        """
        for waiting in (self._failed, self._fresh) if self._failed_first else (self._fresh, self._failed):
            for lane in waiting:
                self._tried_fresh = self._tried_fresh or waiting is self._fresh
                del waiting[lane]
                return lane
        return None

    @property
    def waiting(self) -> int:
        """How many lanes wait."""
        return len(self._fresh) + len(self._failed)

    def probed(self, *, well: bool) -> None:
        """A call that was let through has ended; after some good ones, or when nobody waits, the breaker closes."""
        self._seen_good, self._seen_bad = self._seen_good or well, self._seen_bad or not well
        if well:
            self._good += 1
            self.is_open = self._good < _GOOD_PROBES and self.waiting > 0

    def next_round(self) -> bool:
        """Time to let calls through again; says whether all that ended since the last time have failed."""
        all_failed = self._seen_bad and not self._seen_good
        if all_failed:
            self._good, self.delay = 0, min(_MAX_DELAY, self.delay * 2)
            self._failed_first = self._tried_fresh and not self._failed_first
        elif self._seen_good:
            self.delay = _FIRST_DELAY
        self._seen_good = self._seen_bad = self._tried_fresh = False
        return all_failed


class Breakers:
    """The breakers of one instance's handlers.

    Args:
        on_opened: told the name of a handler whose breaker opens.

    Attributes:
        wake: called when a lane has been resumed.
        troubled: the breakers of handlers of which a call has failed lately, by name; of others nothing is noted.
    """

    def __init__(
        self,
        lanes: Lanes[Job],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        on_opened: Callable[[str], None],
    ) -> None:
        self._lanes = lanes
        self._on_opened = on_opened
        self._clock = clock
        self.wake: Callable[[], None]
        self._spawn = spawn
        self.troubled: dict[str, Breaker] = {}

    def may_run(self, job: Job, handler: Handler) -> bool:
        """Whether the handler may be called; if not, the job's lane is held."""
        breaker = self.troubled.get(handler.name)
        if breaker is None or not breaker.is_open or job.lane in breaker.probing:
            return True
        breaker.hold(job.lane, failed=_has_failed(job, handler))
        return False

    def holds(self, lane: Hashable) -> bool:
        """Whether a lane is held."""
        return any(breaker.holds(lane) for breaker in self.troubled.values())

    def is_open(self, handler: str) -> bool:
        """Whether the calls of the handler of this name wait, but for a few."""
        return handler in self.troubled and self.troubled[handler].is_open

    def failed(self, job: Job, handler: Handler, *, again: bool, calls: int = 1) -> bool:
        """A call has failed, other than by a business error. Says whether its lane is held, the attempt not counted.

        `again`: it was not the first for this record; `calls` as for `Breaker.note`.
        """
        breaker = self.troubled.setdefault(handler.name, Breaker())
        if breaker.is_open:
            if job.lane in breaker.probing:
                breaker.probing.remove(job.lane)
                breaker.probed(well=False)
        elif not breaker.note(job.metadata.event_id, job.record.key or job.metadata.event_id, again=again, calls=calls):
            return False
        else:
            self._on_opened(handler.name)
            _log.error("circuit breaker opens: most calls fail, records wait", **_about(handler, breaker))
            self._spawn(self._probe(handler, breaker))
        breaker.hold(job.lane, failed=True)
        return True

    def succeeded(self, job: Job, handler: Handler) -> None:
        """A call has ended well, or with a business error."""
        breaker = self.troubled.get(handler.name)
        if breaker is None:
            return
        if breaker.is_open:
            breaker.probing.discard(job.lane)
            breaker.probed(well=True)
            if breaker.is_open:
                self._let_through(breaker)
            else:
                self._close(handler, breaker)
        else:
            breaker.note(job.metadata.event_id, None, again=_has_failed(job, handler))
            if breaker.is_calm:
                del self.troubled[handler.name]

    def _close(self, handler: Handler, breaker: Breaker) -> None:
        _log.info("circuit breaker closes: calls succeed again", **_about(handler, breaker))
        del self.troubled[handler.name]
        while (lane := breaker.release()) is not None:
            self._lanes.resume(lane)
        self.wake()

    async def _probe(self, handler: Handler, breaker: Breaker) -> None:
        while breaker.is_open:
            await self._clock.sleep(breaker.delay)
            if breaker.is_open:
                if breaker.next_round():
                    _log.warning("circuit breaker: calls still fail", **_about(handler, breaker), delay=breaker.delay)
                self._let_through(breaker)

    def _let_through(self, breaker: Breaker) -> None:
        # Lanes may have gone with their partition, or wait for something else meanwhile.
        breaker.probing = {lane for lane in breaker.probing if self._lanes.is_moving(lane)}
        while len(breaker.probing) < _PROBES and (lane := breaker.release()) is not None:
            if self._lanes.resume(lane):
                breaker.probing.add(lane)
        self.wake()


def _has_failed(job: Job, handler: Handler) -> bool:
    return job.failing is not None and handler.name in job.failing


def _about(handler: Handler, breaker: Breaker) -> dict[str, Any]:
    return {"service": handler.service, "handler": handler.name, "waiting": breaker.waiting}
