"""Two instances that decide something of one saga at the same moment, on PostgreSQL: which commits first is forced.

Both have read the same notes and done their work before the first of them commits. The other one hears that it was
overtaken, and then does what is right after that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from choreo import Context, Event, Service
from choreo.choreography import Choreography
from choreo.errors import OvertakenError
from choreo.events import Metadata
from choreo.log.memory import MemoryLog
from choreo.log.port import Topic
from choreo.runtime.instance import Instance
from choreo.store import Effects, make_store
from choreo.wire import Codec, open_registry
from tests.integration.postgres_world import TABLES, PostgresWorld
from tests.integration.runtime_world import owned, unique
from tests.integration.saga_world import Charged, Ordered, OutOfStock, Refunded, Reserved, Sent
from tests.support import eventually

TIME = "2026-11-28T10:00:00.000Z"
ORDERS = [0, 1, None]
"""Which instance commits first; None: both at once."""


class Race:
    """Where two instances wait for each other, each before the first commit that has notes.

    Attributes:
        first: whose commit is done before the other begins; None if nobody's.
        overtaken: how often each of them was.
    """

    def __init__(self, first: int | None) -> None:
        self.first = first
        self.overtaken: Counter[int] = Counter()
        self._both = asyncio.Barrier(2)
        self._arrived: set[int] = set()
        self._done = asyncio.Event()

    async def arrive(self, number: int) -> None:
        if number in self._arrived:
            return
        self._arrived.add(number)
        await self._both.wait()
        if self.first not in {None, number}:
            await self._done.wait()

    def committed(self, number: int) -> None:
        if number == self.first:
            self._done.set()


class RacingStore:
    """A store that takes part in a race; the rest is the store's own."""

    def __init__(self, store: Any, race: Race, number: int) -> None:
        self._store, self._race, self._number = store, race, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, effects: Effects) -> int | None:
        if effects.notes:
            await self._race.arrive(self._number)
        try:
            row = await self._store.commit(effects)
        except OvertakenError:
            self._race.overtaken[self._number] += 1
            raise
        if effects.notes:
            self._race.committed(self._number)
        return row


@pytest.fixture
def world(tmp_path: Path, postgres_url: str) -> Iterator[PostgresWorld]:
    world = PostgresWorld(MemoryLog(), tmp_path, postgres_url, f"test_{uuid4().hex[:12]}")
    yield world
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {world.schemas}_payments CASCADE")


async def run(world: PostgresWorld, service: Service, race: Race, *events: Event) -> None:
    """Let two instances take these two events of one saga at the same moment, each one of them, and come to rest."""
    codec = Codec(open_registry(f"{world.folder}/schemas"))
    await codec.prepare(writes=set(service.event_classes), reads=set(service.event_classes))
    topics = Choreography.of([service]).topics
    await world.log.create_topics([Topic(name=topic, partitions=2) for topic in topics])
    instances = [
        Instance(
            service, log=world.log, codec=codec, settings=world.settings(),
            open_store=lambda url, number=number: RacingStore(make_store(url), race, number),
        )
        for number, _ in enumerate(events)
    ]  # fmt: skip
    try:
        for each in instances:
            await each.start()
        for event, each in zip(events, instances, strict=True):
            await until_it_owns(each, event.contract.topics[0])
        for event, each in zip(events, instances, strict=True):
            at = next(at for at in owned(each) if at.topic == event.contract.topics[0])
            about = Metadata(f"{event.contract.type_name}-1", event.contract.type_name, "test", TIME, "s1")
            record = codec.encode(event, about, timestamp=1)._replace(partition=at.partition)
            await world.log.producer().append([record])
        await world.read_to_the_end(service)
    finally:
        for each in instances:
            await each.stop()


async def until_it_owns(instance: Instance, topic: str) -> None:
    await eventually(lambda: len([at for at in owned(instance) if at.topic == topic]) == 1)


def payments() -> Service:
    service = Service("payments", tables=TABLES)

    @service.on(Ordered)
    async def charge(order: Ordered, ctx: Context) -> Charged:
        await ctx.db.execute("INSERT INTO effects (id, n) VALUES (%s, 1)", (order.id,))
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,))
    async def refund(charged: Charged, failure: OutOfStock, ctx: Context) -> Refunded:
        await ctx.db.execute("INSERT INTO effects (id, n) VALUES (%s, -1)", (charged.id,))
        return Refunded(id=charged.id)

    return service


@pytest.mark.parametrize("first", ORDERS)
async def test_a_step_and_its_failure_at_the_same_moment_end_undone_or_not_started(world, first):
    race = Race(first)
    await run(world, payments(), race, Ordered(id="o1"), OutOfStock(id="o1"))
    rows = [n for _, n in world.rows("payments")]
    refunds, charges = unique(await world.events("refunds")), unique(await world.events("charges"))
    assert race.overtaken.total() == 1, "they did decide from the same notes"
    (loser,) = race.overtaken
    if first is not None:
        assert loser != first
    assert rows == ([1, -1] if loser == 1 else [])
    assert (len(charges), len(refunds)) == ((1, 1) if loser == 1 else (0, 0))


@pytest.mark.parametrize("first", ORDERS)
async def test_the_two_events_of_a_join_at_the_same_moment_let_it_fire_once(world, first):
    service = Service("payments", tables=TABLES)

    @service.join(Charged, Reserved)
    async def send(charged: Charged, reserved: Reserved, ctx: Context) -> Sent:
        await ctx.db.execute("INSERT INTO effects (id, n) VALUES (%s, 1)", (charged.id,))
        return Sent(id=charged.id)

    race = Race(first)
    await run(world, service, race, Charged(id="o1"), Reserved(id="o1"))
    assert race.overtaken.total() == 1
    assert world.rows("payments") == [("o1", 1)]
    assert len(unique(await world.events("parcels"))) == 1
