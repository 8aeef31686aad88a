"""Nothing is lost and effects happen once: duplicates, crashes at every point, stores and logs that fail."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from choreo import Context, Service, connect
from choreo.errors import LogUnavailableError, StoreUnavailableError
from choreo.log.port import NewRecord, TopicPartition
from choreo.runtime import recovery
from tests.integration.runtime_faults import Faults, FaultyLog, plant
from tests.integration.runtime_world import (
    AT_ONCE,
    TABLES,
    Paid,
    Placed,
    Shipped,
    World,
    crash,
    effects_service,
    owned,
    unique,
)
from tests.support import eventually

ORDERS = [Placed(id=f"o{number}", n=number) for number in range(12)]


@pytest.fixture
def faults(monkeypatch) -> Faults:
    monkeypatch.setattr("choreo.runtime.ownership._DEATHS", 99)  # crashes made here are no record's fault
    faults = Faults()
    plant(monkeypatch, faults)
    return faults


def faulty(world: World, faults: Faults) -> World:
    return World(FaultyLog(world.log, faults), world.folder)


async def once(world: World, orders=ORDERS) -> None:
    """Every order has had its effect once, and its payment is in the log, in order, all copies with one id."""
    assert sorted(world.rows("payments")) == sorted((order.id, order.n) for order in orders)
    events = await world.events("payments")
    assert sorted(data["id"] for data in unique(events).values()) == sorted(order.id for order in orders)


# --- duplicates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "in two batches"])
async def test_an_event_published_twice_takes_effect_once(world, apart):
    service = effects_service()
    async with world.running(service) as instances, connect(world.settings(), log=world.log) as bus:
        await bus.publish(Placed(id="o"), event_id="request-1")
        if apart:
            await world.read_to_the_end(service)
        await bus.publish(Placed(id="o"), event_id="request-1")
        await world.read_to_the_end(service)
        assert instances["payments"].stats.duplicates == 1
    await once(world, [Placed(id="o")])
    assert len(await world.records("payments")) == 1


async def test_copies_in_one_append_with_other_keys_take_effect_once(world):
    """The copies lie in several partitions, and lanes; all but one are dropped."""
    service, calls = effects_service(concurrency=16), Counter()

    @service.on(Placed)
    async def count(order: Placed, ctx: Context) -> None:
        await asyncio.sleep(0)
        calls[ctx.event_id] += 1

    async with world.running(service):
        await world.publish(Placed(id="o"))
        await world.read_to_the_end(service)
        (original,) = await world.records("orders")
        other = (await world.publish(Placed(id="p", n=1))) and (await world.records("orders"))
        fresh = next(record for record in other if record.key == b"p")
        headers = [(name, b"copied" if name == "ce_id" else text) for name, text in fresh.headers]
        copies = [NewRecord("orders", f"key{n}".encode(), fresh.value, headers) for n in range(40)]
        copies += [NewRecord("orders", f"key{n}".encode(), original.value, original.headers) for n in range(40)]
        await world.log.producer().append(copies)
        await world.read_to_the_end(service)
    assert Counter(world.rows("payments")) == {("o", 0): 1, ("p", 1): 2}, "p twice: as itself and as the event 'copied'"
    assert set(calls.values()) == {1}, "a copy waits for the one under way, and is then dropped unhandled"


async def test_two_runs_of_one_event_in_one_transaction_are_one_effect(memory_world):
    """Should a copy ever run beside the original, the second to finish is undone."""
    service, gate, started = Service("payments", tables=TABLES), asyncio.Event(), []

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> Paid:
        started.append(ctx.event_id)
        await gate.wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await eventually(lambda: len(started) == 1)
        instances["payments"]._intake.forget_all()
        (original,) = await memory_world.records("orders")
        await memory_world.log.producer().append([NewRecord("orders", b"other", original.value, original.headers)])
        await eventually(lambda: len(started) == 2)
        gate.set()
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.duplicates == 1
    await once(memory_world, [Placed(id="o")])
    assert len(await memory_world.records("payments")) == 1


async def test_copies_handled_at_once_by_two_instances_take_effect_once(world):
    """Neither can see the other's open transaction; the inbox's unique key decides."""
    service = effects_service()
    async with world.running(service) as first, world.running(service) as second:
        instances = [first["payments"], second["payments"]]
        await eventually(lambda: all(instance._owned for instance in instances))
        async with connect(world.settings(), log=world.log) as bus:
            for n in range(20):
                await bus.publish(Placed(id=f"o{n}"), event_id=f"event-{n}")
        records = await world.records("orders")
        copies = [NewRecord("orders", f"other{n}".encode(), r.value, r.headers) for n, r in enumerate(records)]
        await world.log.producer().append(copies)
        await world.read_to_the_end(service)
    assert sorted(world.rows("payments")) == sorted((f"o{n}", 0) for n in range(20))
    assert len(unique(await world.events("payments"))) == 20


async def test_a_re_run_emits_the_same_ids(memory_world, faults):
    service = effects_service()
    async with faulty(memory_world, faults).running(service) as instances:
        published = faults.freeze("appended")
        await memory_world.publish(*ORDERS)
        await published.wait()
        await crash(instances["payments"])
        faults.none()
        async with memory_world.running(service):
            await memory_world.read_to_the_end(service)
            await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    events = await memory_world.events("payments")
    assert len(events) > len(ORDERS), "the first instance's copies and the second's"
    await once(memory_world)


# --- crashes ----------------------------------------------------------------------------------------------------------

POINTS = ["take_over", "taken_over", "begin", "commit", "committed", "append", "appended"]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_point_loses_and_doubles_nothing(world, faults, point, count):
    service, shipping = effects_service(), Service("shipping", tables=TABLES)

    @shipping.on(Paid)
    async def ship(paid: Paid, ctx: Context) -> Shipped:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (paid.id, paid.n))
        return Shipped(id=paid.id, n=paid.n)

    reached = faults.freeze(point, count)
    async with faulty(world, faults).running(service) as instances:
        for order in ORDERS:
            publishing = asyncio.ensure_future(world.publish(order))
            await asyncio.wait({publishing})
            if reached.is_set():
                break
        if count == 1 or not point.startswith("take"):
            await eventually(reached.is_set)
        await crash(instances["payments"])
        faults.none()
    left = ORDERS[len(await world.records("orders")) :]
    async with world.running(service, shipping):
        if left:
            await world.publish(*left)
        await world.read_to_the_end(service)
        await eventually(lambda: len(world.rows("shipping")) == len(ORDERS))
        await world.read_to_the_end(shipping)
    await once(world)
    assert sorted(world.rows("shipping")) == sorted((order.id, order.n) for order in ORDERS)
    assert len(unique(await world.events("shipments"))) == len(ORDERS)


async def test_effects_committed_before_their_record_was_done_are_published_after_a_crash(memory_world, faults):
    """Of two handlers one is done and committed while the other still runs; then the instance dies before it publishes."""
    service, wait = effects_service(), asyncio.Event()

    @service.on(Placed)
    async def slow(order: Placed) -> None:
        await wait.wait()

    reached = faults.freeze("append")
    async with faulty(memory_world, faults).running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await reached.wait()
        assert memory_world.rows("payments") == [("o", 0)]
        await crash(instances["payments"])
        faults.none()
    wait.set()
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    await once(memory_world, [Placed(id="o")])


async def test_a_chain_of_crashes_at_random_points(world, faults):
    service, chance = effects_service(), random.Random(5)
    await_start = [Placed(id=f"k{n % 5}", n=n) for n in range(100)]
    async with world.running(service):
        pass  # makes the topics
    await world.publish(*await_start)
    for _ in range(8):
        reached = faults.freeze(chance.choice(POINTS), 1)
        async with faulty(world, faults).running(service, max_in_flight=10) as instances:
            await eventually(reached.is_set)
            await crash(instances["payments"])
        faults.none()
    async with world.running(service):
        await world.read_to_the_end(service)
    rows = world.rows("payments")
    assert sorted(n for _, n in rows) == list(range(100))
    for key in range(5):
        assert [n for name, n in rows if name == f"k{key}"] == list(range(key, 100, 5)), "order per key"
    assert len(unique(await world.events("payments"))) == 100


# --- a store that fails -----------------------------------------------------------------------------------------------

AWAY = StoreUnavailableError("the store is away")


@pytest.mark.parametrize("point", ["begin", "commit", "take_over"])
async def test_a_store_that_fails_for_a_while_loses_and_doubles_nothing(world, faults, monkeypatch, point):
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(recovery, "_MAX_DELAY", 0.004)
    monkeypatch.setattr("choreo.runtime.ownership._RETRY_DELAY", 0.001)
    service = effects_service()
    faults.fail(point, AWAY, times=3, after=0)
    async with world.running(service):
        for order in ORDERS:
            await world.publish(order)
        await world.read_to_the_end(service)
    assert faults.counts[point] > 3
    await once(world)


async def test_what_was_written_before_the_store_failed_is_not_committed_without_its_inbox(memory_world, faults):
    """The first handler's row waits in the open transaction when the second one's statement finds the store broken."""
    service, broken = Service("payments", tables=TABLES), True

    @service.on(Placed)
    async def work(order: Placed, ctx: Context) -> Paid:
        nonlocal broken
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if order.n == 1 and broken:
            broken = False
            raise AWAY
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service):
        pass
    await memory_world.publish(*ORDERS[:3])
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert not broken
    await once(memory_world, ORDERS[:3])


@pytest.mark.parametrize("text", ["small", "x" * 50_000], ids=["in the commit", "in the handler"])
async def test_a_store_whose_disk_is_full_goes_on_when_there_is_room(memory_world, monkeypatch, text):
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(recovery, "_MAX_DELAY", 0.004)
    service = Service("payments", tables=f"{TABLES}; CREATE TABLE IF NOT EXISTS texts (text TEXT)")

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> Paid:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if text != "small":
            await ctx.db.execute("INSERT INTO texts VALUES (?)", (text,))
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        writer, failures = instance._store._writer, []
        monkeypatch.setattr(
            instance._recovery._ownership, "abandon_all", spied(instance._ownership.abandon_all, failures)
        )
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        orders = [Placed(id="o" * 900 + str(n), n=n) for n in range(12)]
        await memory_world.publish(*orders)
        await eventually(lambda: len(failures) > 3)
        assert memory_world.rows("payments") == []
        writer.execute("PRAGMA max_page_count = 1000000")
        await memory_world.read_to_the_end(service)
    await once(memory_world, orders)


def spied(call, calls):
    def spy():
        calls.append(call)
        return call()

    return spy


async def test_a_handler_that_swallows_the_stores_error_writes_nothing_outside_the_transaction(memory_world):
    service, broken = Service("payments", tables=TABLES), True
    holder = {}

    @service.on(Placed)
    async def work(order: Placed, ctx: Context) -> Paid:
        nonlocal broken
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if broken:
            broken = False
            holder["instance"]._store._writer.execute("ROLLBACK")  # as SQLite itself does when a write fails
            for _ in range(2):
                with contextlib.suppress(StoreUnavailableError):
                    await ctx.db.execute("INSERT INTO effects VALUES ('stray', 0)")
        return Paid(id=order.id, n=order.n)

    async with memory_world.running(service) as instances:
        holder["instance"] = instances["payments"]
        await memory_world.publish(*ORDERS)
        await memory_world.read_to_the_end(service)
    await once(memory_world)


async def test_partitions_that_come_while_recovery_waits_are_handled_once(memory_world, faults, monkeypatch):
    """Between a failure and its recovery another member leaves: its partitions are new here, and healthy."""
    service, gate = effects_service(), asyncio.Event()

    async def held(_self, seconds):
        await gate.wait()

    async with memory_world.running(service) as first:
        async with memory_world.running(service) as second:
            await eventually(lambda: len(owned(first["payments"])) == len(owned(second["payments"])) == 2)
            monkeypatch.setattr("choreo.runtime.clock.SystemClock.sleep", held)
            second["payments"]._recovery.fail(AWAY)
            faults.none()
        await eventually(lambda: len(owned(first["payments"])) == 4)
        first["payments"]._recovery.fail(AWAY)
        assert not first["payments"]._owned
        async with memory_world.running(service) as third:
            await eventually(lambda: third["payments"]._owned)
        await eventually(lambda: len(owned(first["payments"])) == 2, lambda: first["payments"]._owned)
        await memory_world.publish(*ORDERS)
        await eventually(lambda: memory_world.rows("payments"))
        gate.set()
        await memory_world.read_to_the_end(service)
    await once(memory_world)


# --- zombies ----------------------------------------------------------------------------------------------------------


async def test_a_zombie_has_no_effect_and_a_partition_fenced_by_mistake_comes_back(memory_world, monkeypatch):
    """Somebody else takes a partition over in the store, though the group counts on us."""
    service = effects_service()
    from choreo.store import make_store

    async with memory_world.running(service) as instances:
        await memory_world.publish(*ORDERS[:6])
        await memory_world.read_to_the_end(service)
        thief = make_store(memory_world.settings().store_of("payments", None))
        await thief.open("payments")
        await thief.take_over([TopicPartition("orders", number) for number in range(4)])
        await thief.close()
        await memory_world.publish(*ORDERS[6:])
        await memory_world.read_to_the_end(service)
        assert len(owned(instances["payments"])) == 4
    await once(memory_world)


# --- a log that fails -------------------------------------------------------------------------------------------------


async def test_while_the_log_takes_nothing_order_is_kept_reading_pauses_and_nothing_is_lost(world, faults, monkeypatch):
    monkeypatch.setattr("choreo.runtime.publisher._FIRST_DELAY", 0.001)
    monkeypatch.setattr("choreo.runtime.publisher._MAX_DELAY", 0.002)
    service = effects_service()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    orders = [Placed(id=f"k{n % 3}", n=n) for n in range(60)]
    async with faulty(world, faults).running(service, max_in_flight=10) as instances:
        await world.publish(*orders)
        instance = instances["payments"]
        await eventually(lambda: faults.counts["append"] > 5 and instance._pressure.load >= 10)
        handled = instance.stats.handled
        seen = faults.counts["append"]
        await eventually(lambda: faults.counts["append"] > seen + 5)
        assert instance.stats.handled == handled == len(world.rows("payments")) <= 20, "the reader waits"
        faults.none()
        await world.read_to_the_end(service)
        await eventually(lambda: instance.stats.emitted == 60 and not instance._publisher.backlog)
    for key in range(3):
        numbers = [data["n"] for _, data in await world.events("payments") if data["id"] == f"k{key}"]
        assert numbers == list(range(key, 60, 3))


async def test_what_the_log_did_not_take_is_published_after_a_restart(world, faults):
    service = effects_service()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    async with faulty(world, faults).running(service, stop_grace=0.05):
        await world.publish(*ORDERS)
        await world.read_to_the_end(service)
    assert await world.records("payments") == []
    assert world.rows("payments", "SELECT * FROM choreo_outbox")
    faults.none()
    async with world.running(service):
        await eventually(lambda: world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    await once(world)


async def test_rows_left_by_others_are_queued_once_however_often_they_are_found(memory_world, faults, monkeypatch):
    monkeypatch.setattr(recovery, "_FIRST_DELAY", 0.001)
    service = effects_service()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    async with faulty(memory_world, faults).running(service, stop_grace=0.05):
        await memory_world.publish(*ORDERS)
        await memory_world.read_to_the_end(service)
    async with faulty(memory_world, faults).running(service, stop_grace=0.05) as instances:
        instance = instances["payments"]
        await eventually(lambda: len(owned(instance)) == 4)
        for _ in range(3):
            instance._recovery.fail(AWAY)
            await eventually(lambda: len(owned(instance)) == 4)
        assert instance._publisher.backlog <= 2 * len(ORDERS), "once under way and once in the queue at most"


async def test_a_quiet_service_ticks_off_its_last_batch(memory_world):
    service = effects_service()
    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await memory_world.read_to_the_end(service)
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])


async def test_a_log_made_anew_is_read_from_its_beginning(tmp_path, memory_world):
    """The store remembers more than the log holds: without care every new record would count as done."""
    from choreo.log.memory import MemoryLog

    service = effects_service()
    async with memory_world.running(service):
        await memory_world.publish(*(Placed(id="o", n=n) for n in range(20)))
        await memory_world.read_to_the_end(service)
    async with MemoryLog() as log:
        again = World(log, tmp_path)
        async with again.running(service):
            await again.publish(*(Placed(id="o", n=n) for n in range(100, 105)))
            await again.read_to_the_end(service)
    assert [n for _, n in again.rows("payments")] == [*range(20), *range(100, 105)]


async def test_attempts_of_a_re_run_hand_out_the_same_idempotency_key(memory_world, faults):
    service, keys = Service("payments"), []

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Context) -> None:
        keys.append((ctx.event_id, ctx.idempotency_key))
        if len(keys) == 1:
            raise RuntimeError("again")

    reached = faults.freeze("commit")
    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await reached.wait()
        await crash(instances["payments"])
        faults.none()
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert len(keys) == 3
    assert len(set(keys)) == 1
