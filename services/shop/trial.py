"""A trial of the shop: sample orders go through running services, are waited for, and are audited.

The demo, the tests and the chaos rounds all try the shop with these few functions.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from random import Random
from time import monotonic
from typing import NamedTuple, TypeVar

from choreo import Bus, Service, Settings
from choreo.choreography import Choreography
from choreo.errors import LogUnavailableError
from choreo.log import Log, TopicPartition
from choreo.runtime.instance import Instance
from choreo.runtime.run import ensure_topics
from choreo.store import Effects, make_store
from choreo.wire.ids import new_event_id
from services.shop.audit import audit, open_stores, still_open
from services.shop.events import OrderPlaced
from services.shop.model import Books

Ends = Mapping[TopicPartition, int]
"""Where each partition ends."""

_AT_ONCE = 50
_POLL = 0.05
_LOG_PATIENCE = 10.0
_SHOWN = 10

T = TypeVar("T")


class Verdict(NamedTuple):
    """How a trial ended.

    Attributes:
        at: when the books were right, or the wait was given up, by `time.monotonic`.
        findings: what is wrong, in words; empty if all is well.
    """

    at: float
    findings: list[str]


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
        LogUnavailableError: the log gave no answer for ten seconds; one that has just created topics may need some.
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


async def place(bus: Bus, orders: Sequence[OrderPlaced], *, duplicates: float = 0.0, seed: int = 0) -> int:
    """Publish the orders, a share of them twice under the same event id; returns how many came twice."""
    draw = Random(seed)  # noqa: S311 - a reproducible choice, no secret
    twice = 0
    for start in range(0, len(orders), _AT_ONCE):
        named = [(order, new_event_id()) for order in orders[start : start + _AT_ONCE]]
        again = [pair for pair in named if draw.random() < duplicates]
        twice += len(again)
        await asyncio.gather(*(bus.publish(order, event_id=event_id) for order, event_id in named + again))
    return twice


async def settle(
    services: Sequence[Service], log: Log, *, stores: str, books: Books, since: Ends, patience: float = 30.0
) -> Verdict:
    """Wait until every order has ended, the books are right and every service has read to the end of its topics.

    Args:
        stores: the stores' address, `sqlite:///folder/{service}.db`.
        since: where the log ended before the first order.
        patience: seconds without any progress after which the wait is given up.
    """
    last_moved, right_at = monotonic(), 0.0
    progress: object = None
    while True:
        open_orders, findings = await asyncio.to_thread(_look, stores, books)
        right_at = 0.0 if findings else right_at or monotonic()
        if not findings and await _have_read_all(services, log, since):
            return Verdict(right_at, [])
        moved = (open_orders, findings, await ends_of(services, log))
        if moved != progress:
            progress, last_moved = moved, monotonic()
        elif monotonic() - last_moved > patience:
            return Verdict(monotonic(), findings or ["a service has not read to the end of its topics"])
        await asyncio.sleep(_POLL)


def _look(stores: str, books: Books) -> tuple[int, list[str]]:
    """How many orders are open, and what is wrong now; the whole audit only when none is open."""
    try:
        with open_stores(stores) as opened:
            waiting = still_open(opened, books)
            if not waiting:
                return 0, audit(opened, books)
    except sqlite3.OperationalError as error:
        return len(books.outcomes), [f"a store cannot be read: {error}"]
    more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
    return len(waiting), [f"{len(waiting)} orders are still open: {', '.join(waiting[:_SHOWN])}{more}"]


async def _have_read_all(services: Sequence[Service], log: Log, since: Ends) -> bool:
    """Whether no service has anything of this trial before it."""
    ends = await ends_of(services, log)
    for service in services:
        topics = service.topics
        grown = {at: end for at, end in ends.items() if at.topic in topics and end > since.get(at, 0)}
        committed = await log.committed(service.name, grown)
        if any(at not in committed or committed[at].offset < end for at, end in grown.items()):
            return False
    return await ends_of(services, log) == ends
