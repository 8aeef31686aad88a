"""What a service instance shows of itself when its metrics are asked for: its counts, and how things stand now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from choreo.errors import StoreError
from choreo.log.port import TopicPartition
from choreo.observe.sources import Sample, sources
from choreo.runtime.batches.waiting import Batches
from choreo.runtime.breaker import Breakers
from choreo.runtime.clock import Clock
from choreo.runtime.lanes import Lanes
from choreo.runtime.partitions import Job, Partition
from choreo.runtime.publisher import Publisher
from choreo.runtime.stats import Stats
from choreo.runtime.timers import Timers
from choreo.runtime.unit import UnitOfWork


class Numbers:
    """Implements `Source` over the parts of an instance; nothing is counted for it as records go by.

    Args:
        threads_given_up: how many threads of handlers go on though they are given up.
    """

    def __init__(
        self,
        service: str,
        stats: Stats,
        *,
        owned: Mapping[TopicPartition, Partition],
        lanes: Lanes[Job],
        batches: Batches | None,
        unit: UnitOfWork,
        publisher: Publisher,
        breakers: Breakers,
        timers: Timers | None,
        clock: Clock,
        threads_given_up: Callable[[], int],
    ) -> None:
        self._service, self._stats, self._clock = service, stats, clock
        self._owned, self._lanes, self._batches = owned, lanes, batches
        self._unit, self._publisher, self._breakers, self._timers = unit, publisher, breakers, timers
        self._threads_given_up = threads_given_up
        self._pending: tuple[int, int | None] = 0, None

    def show(self) -> None:
        """Be among those whose metrics are shown, until `hide`."""
        sources.add(self)

    def hide(self) -> None:
        """Be no more."""
        sources.discard(self)

    async def refresh(self) -> None:
        """See `Source.refresh`: how many timers there are, the store knows."""
        if self._timers is not None:
            try:
                self._pending = await self._unit.store.pending(list(self._owned))
            except StoreError:
                return  # the last answer is better than no metrics

    def samples(self) -> Iterator[Sample]:
        """See `Source.samples`."""
        mine = (self._service,)
        yield from self._stats.samples(self._service)
        yield from (("choreo_time_lag_seconds", (*mine, topic), lag) for topic, lag in self._lags().items())
        yield "choreo_partitions", mine, len(self._owned)
        yield "choreo_records_in_flight", mine, sum(partition.tracker.open for partition in self._owned.values())
        yield from (("choreo_lanes", (*mine, state), count) for state, count in self._lanes.states().items())
        yield "choreo_parked_keys", mine, len(self._unit.parked)
        yield "choreo_outbox_records", mine, self._publisher.backlog
        yield "choreo_outbox_age_seconds", mine, self._publisher.age
        for handler in self._stats.opened:
            yield "choreo_breaker_open", (*mine, handler), int(self._breakers.is_open(handler))
        if self._timers is not None:
            count, next_ms = self._pending
            late = 0 if next_ms is None else max(0, self._clock.now_ms() - next_ms)
            yield "choreo_timers_pending", mine, count
            yield "choreo_timers_late_seconds", mine, late / 1000
        yield "choreo_threads_given_up", mine, self._threads_given_up()

    def _lags(self) -> dict[str, float]:
        """Of each topic, how old the oldest record is that is not handled."""
        now_ms = self._clock.now_ms()
        lags = {at.topic: 0.0 for at in self._owned}
        waiting = self._batches.jobs() if self._batches is not None else ()
        for jobs in (self._lanes.jobs(), waiting):
            for job in jobs:
                topic = job.partition.at.topic
                if job.timer is None and topic in lags:
                    lags[topic] = max(lags[topic], (now_ms - job.record.timestamp) / 1000)
        return lags
