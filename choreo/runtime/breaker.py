"""Circuit breakers: when most calls of a handler fail, its records wait in their lanes instead of becoming dead letters."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import structlog

from choreo.runtime.clock import Clock
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job
from choreo.service import Handler

_log = structlog.get_logger("choreo.runtime")
_RECORDS = 50
"""How many records, the last ones, are looked at."""
_MOST = 0.8
"""The share of them that must have failed: where many calls still go well, retries and dead letters are better."""
_LEAST_CALLS, _LEAST_KEYS = 20, 5
"""It takes so many calls, and failures of so many keys, to open: one poison key is no sign of an outage."""
_FIRST_DELAY, _MAX_DELAY = 1.0, 30.0
_GOOD_PROBES = 3


class Breaker:
    """The state of one handler's breaker. Pure.

    Each record counts once, by its last call, so that retries of a few bad ones do not outweigh the good.

    Attributes:
        is_open: whether calls wait.
        delay: seconds until the next probe.
        held: the lanes that wait, longest first.
        may_probe: whether the next call may go through.
        probe: the job that does.
    """

    def __init__(self) -> None:
        self._last: dict[str, Hashable] = {}  # event -> key if it failed, None if it did not
        self._calls = 0
        self._good = 0
        self.is_open = False
        self.delay = _FIRST_DELAY
        self.held: dict[Hashable, None] = {}
        self.may_probe = False
        self.probe: Job | None = None

    def note(self, event_id: str, failing_key: Hashable) -> bool:
        """A call has ended, well if the key is None. Says whether the breaker opens."""
        self._last.pop(event_id, None)
        self._last[event_id] = failing_key
        self._calls += 1
        if len(self._last) > _RECORDS:
            del self._last[next(iter(self._last))]
        failing = [key for key in self._last.values() if key is not None]
        most = len(failing) >= _MOST * len(self._last)
        self.is_open = self._calls >= _LEAST_CALLS and len(set(failing)) >= _LEAST_KEYS and most
        return self.is_open

    @property
    def is_calm(self) -> bool:
        """Whether none of the last records has failed."""
        return not any(key is not None for key in self._last.values())

    def probed(self, *, well: bool) -> None:
        """The probe has ended; after some good ones, or when nobody waits, the breaker closes."""
        self.probe = None
        if not well:
            self._good, self.delay = 0, min(_MAX_DELAY, self.delay * 2)
            return
        self._good += 1
        self.is_open = self._good < _GOOD_PROBES and bool(self.held)


class Breakers:
    """The breakers of one instance's handlers.

    Attributes:
        wake: called when a lane has been resumed.
        troubled: the breakers of handlers of which a call has failed lately, by name; of others nothing is noted.
    """

    def __init__(
        self,
        lanes: Lanes[Job],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._lanes = lanes
        self._clock = clock
        self.wake: Callable[[], None]
        self._spawn = spawn
        self.troubled: dict[str, Breaker] = {}

    def may_run(self, job: Job, handler: Handler) -> bool:
        """Whether the handler may be called; if not, the job's lane is held."""
        breaker = self.troubled.get(handler.name)
        if breaker is None or not breaker.is_open:
            return True
        if breaker.may_probe:
            breaker.may_probe, breaker.probe = False, job
            return True
        breaker.held.setdefault(job.lane)
        return False

    def holds(self, lane: Hashable) -> bool:
        """Whether a lane is held."""
        return any(lane in breaker.held for breaker in self.troubled.values())

    def failed(self, job: Job, handler: Handler) -> bool:
        """A call has failed, other than by a business error. Says whether its lane is held, the attempt not counted."""
        breaker = self.troubled.setdefault(handler.name, Breaker())
        if breaker.is_open:
            if breaker.probe is job:
                breaker.probed(well=False)
                _log.warning("circuit breaker: probe failed", **_about(handler, breaker), next_probe=breaker.delay)
        elif not breaker.note(job.metadata.event_id, job.record.key or job.metadata.event_id):
            return False
        else:
            _log.error("circuit breaker opens: most calls fail, records wait", **_about(handler, breaker))
            self._spawn(self._probe(breaker))
        breaker.held.setdefault(job.lane)
        return True

    def succeeded(self, job: Job, handler: Handler) -> None:
        """A call has ended well, or with a business error."""
        breaker = self.troubled.get(handler.name)
        if breaker is None or (breaker.is_open and breaker.probe is not job):
            return
        if breaker.is_open:
            breaker.probed(well=True)
            if breaker.is_open:
                self._let_one_through(breaker)
            else:
                self._close(handler, breaker)
        else:
            breaker.note(job.metadata.event_id, None)
            if breaker.is_calm:
                del self.troubled[handler.name]

    def _close(self, handler: Handler, breaker: Breaker) -> None:
        _log.info("circuit breaker closes: calls succeed again", **_about(handler, breaker))
        del self.troubled[handler.name]
        for lane in breaker.held:
            self._lanes.resume(lane)
        self.wake()

    async def _probe(self, breaker: Breaker) -> None:
        while breaker.is_open:
            await self._clock.sleep(breaker.delay)
            if breaker.is_open and (breaker.probe is None or breaker.probe.partition.gone):
                self._let_one_through(breaker)

    def _let_one_through(self, breaker: Breaker) -> None:
        breaker.may_probe = True
        if breaker.held:
            lane = next(iter(breaker.held))
            del breaker.held[lane]
            self._lanes.resume(lane)
            self.wake()


def _about(handler: Handler, breaker: Breaker) -> dict[str, Any]:
    return {"service": handler.service, "handler": handler.name, "waiting": len(breaker.held)}
