"""Batches that fail: whole again, then halved down to the record that fails; outages, and what comes back alone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from choreo import BatchContext, Retry, Service
from choreo.errors import StoreUnavailableError
from choreo.runtime import recovery
from tests.integration.batch_world import BIG, Lake, in_order, orders, turning
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_faults import Faults, plant
from tests.integration.runtime_world import TABLES, Declined, Paid, Placed, World
from tests.integration.test_runtime_parking import come_back
from tests.support import eventually


@pytest.fixture
def clock(monkeypatch) -> TurnedClock:
    """The clock of instances started from now on."""
    turned = TurnedClock()
    monkeypatch.setattr("choreo.runtime.instance.SystemClock", lambda: turned)
    return turned


def bad(*numbers: int, error: type[BaseException] = ValueError):
    """What spoils a batch that has one of these orders."""
    return lambda order: error(f"order {order.n}") if order.n in numbers else None


async def buried(world: World) -> dict[int, str]:
    """The orders among the dead letters, and why they are there; each once."""
    by_place = {(record.partition, record.offset): record for record in await world.records("orders")}
    numbers = {place: data["n"] for place, (_, data) in zip(by_place, await world.events("orders"), strict=True)}
    letters = await world.letters("payments")
    found = {
        numbers[int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"])]: headers["choreo.dlq.kind"]
        for headers, _ in letters
    }
    assert len(found) == len(letters)
    return found


# --- the whole, then its halves ---------------------------------------------------------------------------------------


async def test_a_transient_error_is_tried_again_with_the_same_events_in_place(memory_world, clock):
    failures = Counter({0: 2})

    def flaky(order: Placed) -> BaseException | None:
        failures[order.n] -= 1
        return TimeoutError("gateway") if failures[order.n] >= 0 else None

    lake = Lake(flaky, max_size=4, max_age="1h", retry=Retry(attempts=5, delay="1s", in_place="1m"))
    async with memory_world.running(lake.service) as instances:
        await memory_world.publish(*orders(8, keys=1))
        await turning(clock, lambda: instances["payments"].stats.handled == 2)
    assert lake.calls == [[0, 1, 2, 3]] * 3 + [[4, 5, 6, 7]], "the next batch of the partition waits"
    assert in_order(memory_world.rows("payments"), range(8), keys=1)


async def test_a_record_that_fails_is_found_and_goes_to_the_dead_letters_alone(world):
    lake = Lake(bad(13, 77), max_size=50, max_age="30ms")
    async with world.running(lake.service) as instances:
        await world.publish(*orders(200, keys=20))
        await world.read_to_the_end(lake.service)
        assert instances["payments"].stats.dead_letters == 2
        await eventually(lambda: not instances["payments"]._intake._under_way)
    assert in_order(world.rows("payments"), [n for n in range(200) if n not in {13, 77}], keys=20)
    assert await buried(world) == {13: "exhausted", 77: "exhausted"}
    letters = await world.letters("payments")
    assert {headers["choreo.dlq.parked"] for headers, _ in letters} == {"0"}, "its key goes on"


async def test_a_half_that_does_well_is_called_once_and_is_durable_whatever_the_other_does(memory_world, clock):
    lake = Lake(bad(3), max_size=8, max_age="1h", retry=Retry(attempts=1))
    async with memory_world.running(lake.service):
        await memory_world.publish(*orders(8, keys=1))
        await memory_world.read_to_the_end(lake.service)
    assert lake.calls == [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7]]
    assert in_order(memory_world.rows("payments"), [0, 1, 2, 4, 5, 6, 7], keys=1)


async def test_attempts_that_are_used_up_are_those_of_the_halves_too(memory_world):
    lake = Lake(bad(0), max_size=4, max_age="1h", retry=Retry(attempts=3, delay=0, max_delay=0))
    async with memory_world.running(lake.service):
        await memory_world.publish(*orders(4, keys=1))
        await memory_world.read_to_the_end(lake.service)
    assert lake.calls == [[0, 1, 2, 3]] * 3 + [[0, 1], [0], [1], [2, 3]]
    assert [context.attempt for context in lake.contexts] == [1, 2, 3, 4, 5, 5, 4]
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["__dlq.errors.delivery.count"] == "5"


class DeclinedError(Exception):
    """No."""


def declined(order: Placed, error: DeclinedError) -> Declined:
    return Declined(id=order.id)


@pytest.mark.parametrize("kind", ["business", "declared", "fatal", "undeclared"])
async def test_errors_that_would_come_again_are_looked_for_at_once(memory_world, kind):
    retry = Retry(
        attempts=9, fatal=(TypeError,), business={DeclinedError: declined} if kind == "declared" else (DeclinedError,)
    )
    service, calls = Service("payments", tables=TABLES), []

    @service.batch(Placed, max_size=4, max_age="1h", retry=retry)
    async def load(placed: list[Placed], ctx: BatchContext) -> Declined | None:
        calls.append(len(placed))
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        if all(order.n != 2 for order in placed):
            return None
        if kind == "undeclared":
            return Paid(id="k")  # type: ignore[return-value]
        raise TypeError("a bug") if kind == "fatal" else DeclinedError("no cover")

    async with memory_world.running(service):
        sagas = await memory_world.publish(*orders(4, keys=1))
        await memory_world.read_to_the_end(service)
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    assert calls == [4, 2, 2, 1, 1]
    assert in_order(memory_world.rows("payments"), [0, 1, 3], keys=1)
    if kind == "declared":
        ((about, data),) = await memory_world.events("payments")
        assert (about["type"], data["id"]) == ("Declined", "k0")
        assert about["correlationid"] == about["causationid"] == sagas[2], "it belongs to the record's own saga"
        assert await memory_world.letters("payments") == []
    else:
        assert await buried(memory_world) == {2: {"business": "rejected"}.get(kind, kind)}


async def test_many_bad_records_in_a_row_are_no_outage(memory_world, clock):
    """They come first, so nothing does well before them: some other record is asked, and its call undone."""
    spoiled = set(range(40))
    lake = Lake(bad(*spoiled), max_size=BIG, max_age="1h")
    async with memory_world.running(lake.service) as instances:
        with capture_logs() as logs:
            await memory_world.publish(*(Placed(id=f"k{n}", n=n) for n in range(100)), *orders(100, first=100, keys=1))
            await eventually(lambda: instances["payments"]._pressure.load == 200)
            clock.turn(3600)
            await memory_world.read_to_the_end(lake.service)
    assert not [line for line in logs if "circuit breaker" in line["event"]]
    assert sorted(n for _, n in memory_world.rows("payments")) == list(range(40, 200))
    assert (await buried(memory_world)).keys() == spoiled


async def test_a_whole_batch_of_bad_records_ends_in_the_dead_letters(memory_world):
    lake = Lake(bad(*range(4)), max_size=4, max_age="1h")
    async with memory_world.running(lake.service):
        await memory_world.publish(*orders(8, keys=1))
        await memory_world.read_to_the_end(lake.service)
    assert in_order(memory_world.rows("payments"), range(4, 8), keys=1)
    assert (await buried(memory_world)).keys() == set(range(4))


async def test_a_batch_that_hangs_is_ended_and_counts_as_transient(memory_world, clock):
    service, calls = Service("payments", tables=TABLES), []

    @service.batch(
        Placed, max_size=4, max_age="1h", retry=Retry(attempts=2, delay=0, max_delay=0, transient=()), timeout="10s"
    )
    async def load(placed: list[Placed], ctx: BatchContext) -> None:
        calls.append([order.n for order in placed])
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        if any(order.n == 1 for order in placed):
            await asyncio.Event().wait()

    async with memory_world.running(service) as instances:
        await memory_world.publish(*orders(4, keys=1))
        await turning(clock, lambda: instances["payments"].stats.dead_letters == 1)
        await memory_world.read_to_the_end(service)
    assert calls == [[0, 1, 2, 3]] * 2 + [[0, 1], [0], [1], [2, 3]]
    ((headers, _),) = await memory_world.letters("payments")
    assert headers["choreo.dlq.exception"] == "builtins.TimeoutError"
    assert in_order(memory_world.rows("payments"), [0, 2, 3], keys=1)


# --- outages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transient", "fatal"])
@pytest.mark.parametrize("per", ["partition", "key"])
async def test_an_outage_makes_no_dead_letters_and_afterwards_all_is_handled_in_order(memory_world, clock, per, kind):
    down, error = True, TimeoutError if kind == "transient" else ImportError
    lake = Lake(
        lambda _: error("gateway") if down else None,
        max_size=50, max_age="1s", per=per, retry=Retry(attempts=3, delay="1s", transient=(TimeoutError,)),
    )  # fmt: skip
    async with memory_world.running(lake.service) as instances:
        instance = instances["payments"]
        with capture_logs() as logs:
            await memory_world.publish(*orders(400, keys=40))
            await turning(clock, lambda: instance._lanes.deferred_jobs == 400 and not instance._workers._timers)
            before = len(lake.calls)
            await turning(clock, lambda: len(lake.calls) > before + 20, seconds=30)
            assert all(len(call) == 1 for call in lake.calls[before:]), "probes, one record each"
            await eventually(lambda: instance._pressure.load == 0, "what waits is no load")
            down = False
            await turning(clock, lambda: len(memory_world.rows("payments")) == 400)
    said = [line["event"].partition(":")[2].strip() for line in logs if "circuit breaker" in line["event"]]
    assert said[0].startswith("most calls fail")
    assert said[-1] == "calls succeed again"
    assert await memory_world.records("dlq.payments") == []
    assert in_order(memory_world.rows("payments"), range(400), keys=40)


async def test_records_that_fail_in_many_batches_at_once_are_no_outage(memory_world, clock):
    """Each batch has one, so nothing does well until they are halved."""
    lake = Lake(lambda order: ValueError("bad") if order.n < 40 else None, max_size=BIG, max_age="1s", per="key")
    async with memory_world.running(lake.service) as instances:
        with capture_logs() as logs:
            await memory_world.publish(*orders(200, keys=40))
            await eventually(lambda: instances["payments"]._pressure.load == 200)
            await turning(clock, lambda: instances["payments"].stats.dead_letters == 40)
            await memory_world.read_to_the_end(lake.service)
    assert not [line for line in logs if "circuit breaker" in line["event"]]
    assert in_order(memory_world.rows("payments"), range(40, 200), keys=40)
    assert (await buried(memory_world)).keys() == set(range(40))


async def test_a_batch_that_is_spoiled_does_not_keep_the_breaker_open(memory_world, clock):
    """There was an outage. When it is over, the only batch still fails as a whole, and yet it is."""
    down = True
    lake = Lake(lambda order: TimeoutError("gateway") if down or order.n == 3 else None, max_size=BIG, max_age="1s")
    async with memory_world.running(lake.service) as instances:
        instance = instances["payments"]
        await memory_world.publish(*(Placed(id=f"k{n}", n=n) for n in range(60)))
        await eventually(lambda: instance._pressure.load == 60)
        await turning(clock, lambda: instance._lanes.deferred_jobs == 60)
        down = False
        await turning(clock, lambda: instance.stats.dead_letters == 1 and len(memory_world.rows("payments")) == 59)
    assert (await buried(memory_world)).keys() == {3}


async def test_not_even_an_outage_keeps_a_batch_for_ever(memory_world, clock):
    retry = Retry(attempts=3, delay="1s", within="10m")
    lake = Lake(lambda _: TimeoutError("gateway"), max_size=BIG, max_age="1s", retry=retry)
    async with memory_world.running(lake.service) as instances:
        instance = instances["payments"]
        await memory_world.publish(*(Placed(id=f"k{n}", n=n) for n in range(30)))
        await eventually(lambda: instance._pressure.load == 30)
        await turning(clock, lambda: instance.stats.dead_letters == 30, seconds=30)
    assert set((await buried(memory_world)).values()) == {"exhausted"}


# --- what comes back --------------------------------------------------------------------------------------------------


async def test_what_is_redriven_is_a_batch_of_one(world):
    lake = Lake(bad(2), max_size=4, max_age="1h")
    async with world.running(lake.service) as instances:
        await world.publish(*orders(4, keys=1))
        await world.read_to_the_end(lake.service)
        ((_, letter),) = await world.letters("payments")
        calls = len(lake.calls)
        await come_back(world, letter)
        await eventually(lambda: instances["payments"].stats.dead_letters == 2)
        assert lake.calls[calls:] == [[2]] * 3, "as often as any record"
        lake.spoils = bad()
        again = [found for found in await world.letters("payments") if found[0]["choreo.dlq.redrive-count"] == "1"]
        ((headers, letter),) = again
        assert headers["choreo.dlq.kind"] == "exhausted"
        await come_back(world, letter)
        await eventually(lambda: len(world.rows("payments")) == 4)
        await come_back(world, letter)
        await eventually(lambda: instances["payments"].stats.duplicates == 1)
    assert lake.calls[-1] == [2]
    assert [n for _, n in world.rows("payments")] == [0, 1, 3, 2]


async def test_what_is_discarded_is_not_called(memory_world):
    lake = Lake(bad(0), max_size=1, max_age="1h")
    async with memory_world.running(lake.service):
        await memory_world.publish(*orders(1))
        await memory_world.read_to_the_end(lake.service)
        ((_, letter),) = await memory_world.letters("payments")
        calls = len(lake.calls)
        with capture_logs() as logs:
            await come_back(memory_world, letter, discard=True)
            await eventually(lambda: [line for line in logs if line["event"] == "record discarded"])
    assert len(lake.calls) == calls


async def test_long_waits_are_for_the_one_that_fails_and_spent_in_the_retry_topic(memory_world):
    failures = Counter({2: 6})

    def flaky(order: Placed) -> BaseException | None:
        failures[order.n] -= 1
        return TimeoutError("gateway") if failures[order.n] >= 0 else None

    retry = Retry(attempts=20, delay="20ms", max_delay="20ms", in_place=0)
    lake = Lake(flaky, max_size=4, max_age="1h", retry=retry)
    async with memory_world.running(lake.service):
        await memory_world.publish(*orders(4, keys=1))
        await eventually(lambda: len(memory_world.rows("payments")) == 4)
    assert lake.calls[:5] == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert lake.calls[5:] == [[2]] * 4
    assert [context.attempt for context in lake.contexts[5:]] == [4, 5, 6, 7]
    assert [n for _, n in memory_world.rows("payments")] == [0, 1, 3, 2]
    assert await memory_world.records("dlq.payments") == []


# --- what fails beside the handler ------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["begin", "commit", "take_over"])
async def test_a_store_that_fails_for_a_while_loses_and_doubles_nothing(world, monkeypatch, point):
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(recovery, "_MAX_DELAY", 0.004)
    monkeypatch.setattr("choreo.runtime.ownership._RETRY_DELAY", 0.001)
    faults, lake = Faults(), Lake(bad(7), max_size=6, max_age="10ms")
    plant(monkeypatch, faults)
    faults.fail(point, StoreUnavailableError("the store is away"), times=4, after=2 * (point != "take_over"))
    async with world.running(lake.service) as instances:
        await eventually(lambda: instances["payments"]._owned)
        for order in orders(60):
            await world.publish(order)
        await world.read_to_the_end(lake.service)
        await eventually(lambda: not instances["payments"]._intake._under_way)
    assert faults.counts[point] > 4
    assert in_order(world.rows("payments"), [n for n in range(60) if n != 7])
    assert (await buried(world)).keys() == {7}


async def test_a_partition_that_goes_takes_the_parts_that_are_not_done(memory_world):
    """Half of the batch is durable when its owner stops; the next one handles the other half, and no more."""
    service, gate, calls = Service("payments", tables=TABLES), asyncio.Event(), []

    @service.batch(Placed, max_size=4, max_age="1h", retry=Retry(attempts=1))
    async def load(placed: list[Placed], ctx: BatchContext) -> None:
        calls.append([order.n for order in placed])
        if len(calls) == 1:
            raise TimeoutError("gateway")
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        await gate.wait()

    async with memory_world.running(service) as instances:
        await memory_world.publish(*orders(4, keys=1))
        await eventually(lambda: len(calls) == 2)
        partition = next(one for one in instances["payments"]._owned.values() if one.tracker.open)
        leaving = asyncio.create_task(partition.leaving.wait())
        leaving.add_done_callback(lambda _: gate.set())
    assert in_order(memory_world.rows("payments"), [0, 1], keys=1)
    async with memory_world.running(service, max_in_flight=2):
        await memory_world.read_to_the_end(service)
    assert calls == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert in_order(memory_world.rows("payments"), range(4), keys=1)
