"""Joins: they fire once, with what they waited for, in any order of arrival."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from choreo import Context, Event, Service
from tests.integration.runtime_world import AT_ONCE
from tests.integration.saga_world import TABLES, Charged, OutOfStock, Refunded, Reserved, Sent, tell
from tests.support import eventually


class Split(Event, topic="splits", key="id"):
    """A file has become so many chunks."""

    id: str
    chunks: int


class Loaded(Event, topic="loads", key="id"):
    """One of the chunks."""

    id: str
    n: int


class Vote(Event, topic="votes", key="voter"):
    """A vote on something."""

    voter: str
    motion: str


def shipping(**options) -> Service:
    service = Service("shipping", tables=TABLES)

    @service.join(Charged, Reserved, retry=AT_ONCE, **options)
    async def ship(paid: Charged, reserved: Reserved, ctx: Context) -> Sent:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (paid.id, paid.n * 10 + reserved.n))
        return Sent(id=paid.id, n=reserved.n)

    return service


@pytest.mark.parametrize("turned", [False, True])
async def test_a_join_fires_once_with_both_whichever_comes_first(world, turned):
    service, halves = shipping(), [Charged(id="o1", n=1), Reserved(id="o1", n=2)]
    async with world.running(service):
        for half in reversed(halves) if turned else halves:
            await tell(world, "s1", half)
            await world.read_to_the_end(service)
        await tell(world, "s1", Charged(id="o1", n=3), Reserved(id="o1", n=4))
        await tell(world, "s2", Charged(id="o2"))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("o1", 12)]
    ((about, data),) = await world.events("parcels")
    assert (about["correlationid"], data) == ("s1", {"id": "o1", "n": 2})


async def test_the_first_of_its_kind_counts_and_copies_do_not(world):
    service = shipping()
    async with world.running(service):
        for _ in range(2):
            await tell(world, "s1", Charged(id="o1", n=1), event_id="first")
        await tell(world, "s1", Charged(id="o1", n=5))
        await world.read_to_the_end(service)
        assert world.rows("shipping") == []
        await tell(world, "s1", Reserved(id="o1", n=2))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("o1", 12)]


async def test_many_sagas_at_once_join_each_once(world):
    service, sagas = shipping(), [f"s{number}" for number in range(100)]
    async with world.running(service):
        await asyncio.gather(
            *(tell(world, saga, *pair) for saga in sagas for pair in [(Charged(id=saga),), (Reserved(id=saga),)])
        )
        await world.read_to_the_end(service)
    assert sorted(name for name, _ in world.rows("shipping")) == sorted(sagas)


async def test_halves_find_each_other_after_a_restart(world):
    service = shipping()
    async with world.running(service):
        await tell(world, "s1", Charged(id="o1", n=1))
        await world.read_to_the_end(service)
    async with world.running(service):
        await tell(world, "s1", Reserved(id="o1", n=2))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("o1", 12)]


async def test_a_join_that_can_not_fire_any_more_does_not(world):
    service = shipping(unless=(OutOfStock,))
    async with world.running(service):
        await tell(world, "s1", Charged(id="o1"), OutOfStock(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", Reserved(id="o1"))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == []


async def test_any_of_fires_with_the_first_and_none_for_the_others(world):
    service = Service("shipping", tables=TABLES)

    @service.join(Charged, Refunded, need=1)
    async def note(charged: Charged | None, refunded: Refunded | None, ctx: Context) -> None:
        assert (charged is None) != (refunded is None)
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", ("o1", 1 if charged else 2))

    async with world.running(service):
        await tell(world, "s1", Refunded(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", Charged(id="o1"))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("o1", 2)]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_as_many_are_gathered_as_an_earlier_event_says(memory_world, order):
    service = Service("shipping", tables=TABLES)

    @service.join(Split, Loaded, count=lambda split: split.chunks)
    async def finish(split: Split, loaded: list[Loaded], ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (split.id, sum(each.n for each in loaded)))

    events = [Split(id="f", chunks=2), Loaded(id="f", n=1), Loaded(id="f", n=10)]
    async with memory_world.running(service):
        for place in order:
            await tell(memory_world, "s1", events[place])
            await memory_world.read_to_the_end(service)
        await tell(memory_world, "s1", Loaded(id="f", n=100))
        await tell(memory_world, "s2", Split(id="empty", chunks=0))
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("shipping") == [("f", 11), ("empty", 0)]


async def test_a_count_that_is_no_number_is_a_dead_letter_that_says_so(memory_world):
    service = Service("shipping", tables=TABLES)

    @service.join(Split, Loaded, count=lambda split: None)
    async def finish(split: Split, loaded: list[Loaded]) -> None: ...

    async with memory_world.running(service):
        await tell(memory_world, "s1", Split(id="f", chunks=2))
        await memory_world.read_to_the_end(service)
    ((about, _),) = await memory_world.letters("shipping")
    assert "count= gave None for a Split" in about["__dlq.errors.message"]


async def test_by_a_field_events_of_several_sagas_meet(world):
    service = Service("shipping", tables=TABLES)

    @service.join(Vote, by="motion", count=3)
    async def carry(votes: list[Vote], ctx: Context) -> None:
        await ctx.db.execute(
            "INSERT INTO effects VALUES (?, ?)", (votes[0].motion, len({vote.voter for vote in votes}))
        )

    async with world.running(service):
        for number in range(5):
            for motion in ("a", "b"):
                if motion == "a" or number < 2:
                    await tell(world, f"{motion}{number}", Vote(voter=f"v{number}", motion=motion))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("a", 3)]


async def test_a_join_whose_handler_fails_fires_later_and_once(world):
    service, calls = Service("shipping", tables=TABLES), []

    @service.join(Charged, Reserved, retry=AT_ONCE)
    async def ship(paid: Charged, reserved: Reserved, ctx: Context) -> Sent:
        calls.append(ctx.attempt)
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (paid.id,))
        if len(calls) < 3:
            raise ConnectionError
        return Sent(id=paid.id)

    async with world.running(service):
        await tell(world, "s1", Charged(id="o1"), Reserved(id="o1"))
        await world.read_to_the_end(service)
        await eventually(lambda: len(calls) == 3)
        await world.read_to_the_end(service)
    assert (calls, world.rows("shipping")) == ([1, 2, 3], [("o1", 1)])


async def test_a_join_can_be_a_step_that_is_undone(world):
    service = Service("shipping", tables=TABLES)

    @service.join(Charged, Reserved)
    async def ship(paid: Charged, reserved: Reserved, ctx: Context) -> Sent:
        await ctx.db.execute("INSERT INTO effects VALUES (?, 1)", (paid.id,))
        return Sent(id=paid.id)

    @service.compensates(ship, on=(OutOfStock,))
    async def call_back(sent: Sent, failure: OutOfStock, ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, -1)", (sent.id,))

    async with world.running(service):
        await tell(world, "s1", Charged(id="o1"), Reserved(id="o1"))
        await world.read_to_the_end(service)
        await tell(world, "s1", OutOfStock(id="o1"))
        await tell(world, "s2", OutOfStock(id="o2"))
        await world.read_to_the_end(service)
        await tell(world, "s2", Charged(id="o2"), Reserved(id="o2"))
        await world.read_to_the_end(service)
    assert world.rows("shipping") == [("o1", 1), ("o1", -1)]
