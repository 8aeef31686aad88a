"""A flow on trial: its services run in this process, sample events go through them, and what came of it is examined.

The demos and the tests of all flows are made of these few functions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

from choreo import Bus, Event, Service, Settings, connect
from choreo.choreography import Choreography
from choreo.errors import LogUnavailableError
from choreo.log import Log, TopicPartition, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.run import ensure_topics, running
from choreo.store import Effects, make_store
from choreo.wire.ids import new_event_id

Ends = Mapping[TopicPartition, int]
"""Where each partition ends."""

_AT_ONCE = 50
_POLL = 0.05
_LOG_PATIENCE = 60.0

T = TypeVar("T")


class Verdict(NamedTuple):
    """How a trial ended.

    Attributes:
        at: when all was right, or the wait was given up, by `time.monotonic`.
        findings: what is wrong, in words; empty if all is well.
    """

    at: float
    findings: list[str]


class AtWork(Protocol):
    """Services at work, wherever, and a bus to publish to them."""

    @property
    def settings(self) -> Settings:
        """Where things are."""

    @property
    def log(self) -> Log:
        """Their log."""

    @property
    def bus(self) -> Bus:
        """Publishes to it."""

    async def settle(self, look: Callable[[], list[str]]) -> object:
        """Wait until nothing is wrong, and all services have read to the end of their topics."""


class Stage(NamedTuple):
    """Services at work in this process, and a bus to publish to them.

    Attributes:
        since: where the log ended before.
        instances: the running services, by name.
    """

    services: Sequence[Service]
    settings: Settings
    log: Log
    since: Ends
    instances: dict[str, Instance]
    bus: Bus

    async def publish(self, events: Sequence[Event], *, duplicates: float = 0.0, seed: int = 0) -> int:
        """See `publish`."""
        return await publish(self.bus, events, duplicates=duplicates, seed=seed)

    async def settle(self, look: Callable[[], list[str]], *, patience: float = 30.0) -> Verdict:
        """See `settle`.

        Raises:
            ChoreoError: why a service cannot go on.
        """
        waiting = settle(self.services, self.log, look, since=self.since, patience=patience)
        return await unless_failed(waiting, self.instances.values())

    async def grown(self) -> int:
        """How many records there are now that were not there before, dead letters and duplicates included."""
        return sum((await ends_of(self.services, self.log)).values()) - sum(self.since.values())

    @property
    def duplicates_dropped(self) -> int:
        """How often a service knew an event already."""
        return sum(instance.stats.duplicates for instance in self.instances.values())


@asynccontextmanager
async def staged(services: Sequence[Service], settings: Settings, *, source: str = "demo") -> AsyncIterator[Stage]:
    """Run these services in this process, in fresh stores that begin at the log's present end.

    Args:
        source: who publishes, as the events' `ce_source` says.

    Raises:
        ChoreoError: the log cannot be used.
    """
    async with open_log(settings.log, settings.kafka) as log:
        since = await begin(services, settings, log)
        async with (
            running(services, settings, log=log) as instances,
            connect(settings, source=source, log=log) as bus,
        ):
            yield Stage(services, settings, log, since, instances, bus)


async def begin(services: Sequence[Service], settings: Settings, log: Log) -> Ends:
    """Create the topics and let the services' fresh stores begin at the log's present end.

    A log may hold the events of earlier trials; a store without progress would make its service start with those.
    """
    topics = Choreography.of(services).topics
    await ensure_topics(log, topics, create=settings.creates_topics)
    ends = await ends_of(services, log)
    for service in services:
        store = make_store(settings.store_of(service.name, service.store))
        await store.open(service.name, service.tables)
        try:
            progress = (await store.take_over(list(ends))).progress
            await store.commit(Effects({at: known._replace(watermark=ends[at]) for at, known in progress.items()}))
            await store.give_back({at: known.epoch for at, known in progress.items()})
        finally:
            await store.close()
    return ends


async def ends_of(services: Sequence[Service], log: Log) -> Ends:
    """Where the partitions of the services' topics end now, those of dead letters included.

    Raises:
        LogUnavailableError: the log gave no answer for a minute; one that has just created topics may need some.
    """
    existing = await log.topics()
    topics = [existing[name] for name in Choreography.of(services).topics if name in existing]
    partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    deadline = monotonic() + _LOG_PATIENCE
    while True:
        try:
            return await log.end_offsets(partitions)
        except LogUnavailableError:
            if monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL)


async def publish(bus: Bus, events: Sequence[Event], *, duplicates: float = 0.0, seed: int = 0) -> int:
    """Publish events that each start a saga, a share of them twice under the same event id; returns how many came twice."""
    draw = Random(seed)  # noqa: S311 - a reproducible choice, no secret
    twice = 0
    for start in range(0, len(events), _AT_ONCE):
        named = [(event, new_event_id()) for event in events[start : start + _AT_ONCE]]
        again = [pair for pair in named if draw.random() < duplicates]
        twice += len(again)
        await asyncio.gather(*(bus.publish(event, event_id=event_id) for event, event_id in named + again))
    return twice


async def settle(
    services: Sequence[Service], log: Log, look: Callable[[], list[str]], *, since: Ends, patience: float = 30.0
) -> Verdict:
    """Wait until nothing is wrong and every service has read to the end of its topics.

    Args:
        look: says what is (still) wrong; called in a worker thread.
        since: where the log ended before the trial.
        patience: seconds without any progress after which the wait is given up.
    """
    last_moved, right_at = monotonic(), 0.0
    progress: object = None
    while True:
        findings = await asyncio.to_thread(look)
        right_at = 0.0 if findings else right_at or monotonic()
        behind = [] if findings else await unread(services, log, since)
        if not findings and not behind:
            return Verdict(right_at, [])
        moved = (findings, await ends_of(services, log))
        if moved != progress:
            progress, last_moved = moved, monotonic()
        elif monotonic() - last_moved > patience:
            return Verdict(monotonic(), findings or behind)
        await asyncio.sleep(_POLL)


async def unread(services: Sequence[Service], log: Log, since: Ends) -> list[str]:
    """What services have before them of this trial, one sentence a partition."""
    ends = await ends_of(services, log)
    found = []
    for service in services:
        topics = service.topics
        grown = {at: end for at, end in ends.items() if at.topic in topics and end > since.get(at, 0)}
        committed = await log.committed(service.name, grown)
        for at, end in grown.items():
            done = committed[at].offset if at in committed else "nothing"
            if at not in committed or committed[at].offset < end:
                found.append(f"{service.name} has committed {done} of {at.topic}/{at.partition}, which ends at {end}")
    if not found and await ends_of(services, log) != ends:
        found.append("the log is still growing")
    return found


async def unless_failed(work: Awaitable[T], instances: Iterable[Instance]) -> T:
    """The result of `work`, waited for as long as all instances go on.

    Raises:
        ChoreoError: why an instance cannot go on.
    """
    working = asyncio.ensure_future(work)
    failing = [asyncio.ensure_future(instance.failure()) for instance in instances]
    try:
        done, _ = await asyncio.wait({working, *failing}, return_when=asyncio.FIRST_COMPLETED)
        for failed in done & set(failing):
            failed.result()
        return await working
    finally:
        for task in (working, *failing):
            task.cancel()
