"""Joins: they fire once, with what they waited for, in any order of arrival."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from choreo import Context, Event, Retry, Service
from choreo.dlq import Reason, Selection, dead_letters
from choreo.runtime.recovery import Recovery
from choreo.testing import running
from choreo.wire import Codec
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


class Quote(Event, topic="quotes", key="id"):
    """One of several that are asked for."""

    id: str
    of: str = ""


class Offer(Event, topic="offers", key="id"):
    """Another kind of them."""

    id: str
    of: str


@pytest.fixture
def slow_registry(monkeypatch):
    """One that is asked over a network: what is not known of a schema takes a while."""
    load = Codec.load

    async def slowly(self, schema_id):
        if schema_id not in self._schemas:
            await asyncio.sleep(0.02)
        await load(self, schema_id)

    monkeypatch.setattr(Codec, "load", slowly)


async def test_what_a_join_gathers_after_a_restart_is_counted_though_schemas_come_slowly(memory_world, slow_registry):
    service = Service("shipping", tables=TABLES)

    @service.join(Split, Loaded, count=lambda split: split.chunks)
    async def finish(split: Split, loaded: list[Loaded], ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (split.id, sum(each.n for each in loaded)))

    async with memory_world.running(service):
        await tell(memory_world, "s1", Split(id="f", chunks=3))
        await memory_world.read_to_the_end(service)
    await tell(memory_world, "s1", *(Loaded(id=f"c{n}", n=10**n) for n in range(3)))
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("shipping") == [("f", 111)]


async def test_two_that_complete_a_join_after_a_restart_let_it_fire_once_though_schemas_come_slowly(
    memory_world, slow_registry
):
    service = Service("shipping")

    @service.join(Charged, Refunded, Quote, need=2)
    async def two(charged: Charged | None, refunded: Refunded | None, quote: Quote | None) -> Sent:
        return Sent(id="o1")

    async with memory_world.running(service):
        await tell(memory_world, "s1", Charged(id="o1"))
        await memory_world.read_to_the_end(service)
    await tell(memory_world, "s1", Refunded(id="o1"), Quote(id="o1"))
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert len(await memory_world.events("parcels")) == 1


async def test_a_join_gathers_exactly_as_many_as_are_counted_when_more_have_come():
    service = Service("shipping")

    @service.join(Split, Loaded, count=lambda split: split.chunks)
    async def finish(split: Split, loaded: list[Loaded]) -> Sent:
        return Sent(id=",".join(each.id for each in loaded))

    async with running(service) as world:
        saga = await world.publish(Loaded(id="c0", n=0))
        for number in range(1, 5):
            await world.publish(Loaded(id=f"c{number}", n=0), correlation_id=saga.correlation_id)
        await world.settle()
        await world.publish(Split(id="f", chunks=3), correlation_id=saga.correlation_id)
        await world.settle()
        (sent,) = world.emitted(Sent)
    assert len(set(sent.id.split(","))) == len(sent.id.split(",")) == 3


async def test_a_join_keeps_its_key_and_its_steps_when_another_event_completes_it():
    service, keys, paid = Service("shipping"), [], []

    @service.join(Charged, Refunded, Quote, need=2, retry=Retry(attempts=1))
    async def two(charged: Charged | None, refunded: Refunded | None, quote: Quote | None, ctx: Context) -> Sent:
        async def pay() -> str:
            paid.append(ctx.idempotency_key)
            return "receipt"

        assert await ctx.step("pay", pay) == "receipt"
        keys.append(ctx.idempotency_key)
        if refunded is not None:
            raise ValueError
        return Sent(id="o1")

    async with running(service) as world:
        saga = await world.publish(Charged(id="o1"))
        await world.settle()
        for event in (Refunded(id="o1"), Quote(id="o1")):
            await world.publish(event, correlation_id=saga.correlation_id)
            await world.settle()
        assert [letter.handler for letter in world.dead_letters] == ["two"], "it did not work with the second"
        assert world.emitted(Sent) == [Sent(id="o1")], "with the third it did"
    assert len(paid) == 1
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_discarding_a_dead_letter_of_a_join_by_a_field_keeps_nobody_from_working(monkeypatch):
    service, failures = Service("shipping"), []
    fail = Recovery.fail

    def failed(self, error):
        failures.append(error)
        fail(self, error)

    monkeypatch.setattr(Recovery, "fail", failed)

    @service.join(Quote, Offer, by="of", retry=Retry(attempts=1))
    async def both(quote: Quote, offer: Offer) -> Sent:
        return Sent(id=quote.of)

    async def resolve(world, kind):
        async with dead_letters(world.log, service="shipping", values_of=Selection(state="open")) as letters:
            reason = Reason(kind=kind, by="test", why="test")
            reports = [report async for report in letters.resolve(Selection(state="open"), reason)]
        assert reports[-1].resolved == 1

    async with running(service, dead_letters="keep") as world:
        world.fail("both", ValueError, times=2)
        await world.publish(Quote(id="1", of="p"))
        await world.publish(Offer(id="2", of="p"))
        await world.settle()
        await resolve(world, "redriven")
        await world.advance("2s")
        assert world.dead_letters[-1].redrives == 1
        await resolve(world, "discarded")
        await world.advance("1m")
        await world.publish(Quote(id="3", of="q"))
        await world.publish(Offer(id="4", of="q"))
        await world.advance("1m")
        assert world.emitted(Sent) == [Sent(id="q")]
    assert failures == []
