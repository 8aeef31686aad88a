"""Instances that start, stop, join and leave while records flow; and how much one instance holds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import defaultdict

import pytest

from choreo import Context, Retry, Service, SyncContext
from choreo.errors import ConfigurationError, StoreUnavailableError, UnknownTopicError
from choreo.log import open_log
from choreo.log.port import Consumer, NewRecord, Topic, TopicPartition
from choreo.log.tables import Tables
from choreo.runtime.run import run_services
from choreo.store.port import Effects
from choreo.store.sqlite.store import SqliteStore
from tests.integration.runtime_faults import Faults, plant
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, World, effects_service, owned, unique
from tests.support import eventually

AWAY = StoreUnavailableError("the store is away")


def dithering_service() -> Service:
    """Its handler takes its time, now before and now after it has written."""
    service, chance = Service("payments", tables=TABLES, concurrency=8), random.Random(1)

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Context) -> Paid:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        return Paid(id=order.id, n=order.n)

    return service


async def in_order_and_once(world: World, count: int, keys: int) -> None:
    rows = world.rows("payments")
    assert sorted(n for _, n in rows) == list(range(count))
    for key in range(keys):
        assert [n for name, n in rows if name == f"k{key}"] == list(range(key, count, keys))
    assert sorted(data["n"] for data in unique(await world.events("payments")).values()) == list(range(count))


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_a_stop_in_the_middle_loses_and_doubles_nothing(world):
    service, handled = dithering_service(), 0
    async with world.running(service):
        await world.publish(*(Placed(id=f"k{n % 9}", n=n) for n in range(300)))
    while handled < 300:
        async with world.running(service, max_in_flight=20) as instances:
            wanted = min(handled + 40, 299)
            await eventually(lambda wanted=wanted: len(world.rows("payments")) > wanted)
        handled = len(world.rows("payments"))
        assert instances["payments"].stats.dead_letters == 0
    await in_order_and_once(world, 300, 9)
    events = await world.events("payments")
    assert len(events) == 300, "a graceful stop publishes nothing twice"


@pytest.mark.parametrize("kind", ["async", "async with ctx.db", "sync"])
async def test_a_handler_that_outlives_the_grace_is_given_up_and_run_again(memory_world, monkeypatch, kind):
    monkeypatch.setattr("choreo.runtime.watchdog.HOLD_LIMIT", 0.2)
    service, started, release = Service("payments", tables=TABLES), threading.Event(), threading.Event()
    first = True

    async def hang(ctx: Context) -> None:
        if kind == "async with ctx.db":
            await ctx.db.execute("INSERT INTO effects VALUES ('never', 0)")
        started.set()
        await asyncio.Event().wait()

    if kind == "sync":

        @service.on(Placed)
        def work(order: Placed, ctx: SyncContext) -> None:
            if first:
                started.set()
                release.wait()
            ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
    else:

        @service.on(Placed)
        async def work(order: Placed, ctx: Context) -> None:
            if first:
                await hang(ctx)
            await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))

    async with memory_world.running(service, stop_grace=0.05):
        await memory_world.publish(Placed(id="o"))
        await eventually(started.is_set)
    first = False
    release.set()
    assert memory_world.rows("payments") == []
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [("o", 0)]


@pytest.mark.parametrize("point", ["take_over", "commit", "begin"])
async def test_a_stop_does_not_wait_for_a_store_that_is_away(memory_world, monkeypatch, point):
    faults = Faults()
    plant(monkeypatch, faults)
    monkeypatch.setattr("choreo.runtime.ownership._RETRY_DELAY", 0.01)
    service = effects_service()
    async with memory_world.running(service):
        pass
    await memory_world.publish(Placed(id="o"))
    faults.fail(point, AWAY, times=10**9)
    async with memory_world.running(service, stop_grace=0.1):
        await eventually(lambda: faults.counts[point] > 1)
    faults.none()
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [("o", 0)]


async def test_one_service_that_cannot_stop_cleanly_does_not_keep_the_others(memory_world):
    @contextlib.asynccontextmanager
    async def lifespan():
        yield
        raise OSError("gateway does not let go")

    bad, good = effects_service("bad", lifespan=lifespan), effects_service("good")
    with pytest.raises(OSError, match="does not let go"):
        async with memory_world.running(bad, good) as instances:
            pass
    assert all(task.done() for task in instances["good"]._tasks)
    async with memory_world.running(effects_service("bad"), effects_service("good")):
        pass


async def test_a_service_that_cannot_start_stops_those_that_have(memory_world):
    bad = Service("bad", tables="CREATE TABLE (")
    bad.on(Placed)(effects_service().handlers["pay"].function)
    with pytest.raises(ConfigurationError, match="'bad'"):
        async with memory_world.running(effects_service("good"), bad):
            pass
    async with memory_world.running(effects_service("good")):
        pass


async def test_a_service_without_handlers_is_refused(memory_world):
    with pytest.raises(ConfigurationError, match="'empty' has no handlers"):
        async with memory_world.running(Service("empty")):
            pass


async def test_run_services_runs_until_it_is_told_to_stop(tmp_path):
    settings = World(None, tmp_path).settings(log=f"sqlite:///{tmp_path}/log.db")  # type: ignore[arg-type]
    stop, service = asyncio.Event(), effects_service()
    async with open_log(settings.log) as log:
        running = asyncio.ensure_future(run_services([service], settings, stop=stop))
        world = World(log, tmp_path)
        await world.publish(Placed(id="o"))
        await world.read_to_the_end(service)
        stop.set()
        await running
        assert world.rows("payments") == [("o", 0)]


async def test_missing_topics_are_all_named_at_start(memory_world):
    with pytest.raises(UnknownTopicError, match=r"dlq\.payments, orders, payments.*choreo topics create"):
        async with memory_world.running(effects_service(), create_topics=False):
            pass


# --- several instances ------------------------------------------------------------------------------------------------


async def test_members_come_and_go_while_records_flow(tmp_path):
    """Two logs over one file, as two processes have; now one, now two instances of the service."""
    service, chance, total = dithering_service(), random.Random(2), 600
    url = f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    async with open_log(url) as one, open_log(url) as two:
        here, there = World(one, tmp_path), World(two, tmp_path)

        async def feed() -> None:
            for first in range(0, total, 20):
                await here.publish(*(Placed(id=f"k{n % 7}", n=n) for n in range(first, first + 20)))

        async def guest() -> None:
            for _ in range(3):
                async with there.running(dithering_service(), max_in_flight=30) as instances:
                    await eventually(lambda own=instances["payments"]: own._owned)
                    seen = len(there.rows("payments"))
                    wanted = min(seen + chance.randrange(60), total - 1)
                    await eventually(lambda enough=wanted: len(there.rows("payments")) > enough)

        async with here.running(service, max_in_flight=30):
            await asyncio.gather(feed(), guest())
            await here.read_to_the_end(service)
        await in_order_and_once(here, total, 7)


async def test_a_retry_that_waits_gives_way_to_a_rebalance(memory_world):
    service, fail = Service("payments", tables=TABLES), True

    @service.on(Placed, retry=Retry(attempts=5, delay="1h", max_delay="1h", within="9h", in_place="1h"))
    async def pay(order: Placed, ctx: Context) -> None:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        if fail:
            raise TimeoutError("gateway")

    async with memory_world.running(service) as first:
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(20)))
        await eventually(lambda: first["payments"]._lanes.deferred_jobs == 20)
        fail = False
        async with memory_world.running(service) as second:
            await eventually(lambda: second["payments"].stats.handled)
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == sorted((f"o{n}", n) for n in range(20))


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_handler_that_holds_the_store_too_long_holds_up_neither_the_others_nor_a_rebalance(
    memory_world, monkeypatch, kind
):
    monkeypatch.setattr("choreo.runtime.watchdog.HOLD_LIMIT", 0.05)
    service, hang, release = Service("payments", tables=TABLES), True, threading.Event()
    often = Retry(attempts=10**6, delay="50ms", max_delay="50ms")
    insert = "INSERT INTO effects VALUES (?, ?)"

    if kind == "async":

        @service.on(Placed, retry=often)
        async def work(order: Placed, ctx: Context) -> None:
            await ctx.db.execute(insert, (order.id, order.n))
            if hang and order.n == 0:
                await asyncio.Event().wait()
    else:

        @service.on(Placed, retry=often)
        def work(order: Placed, ctx: SyncContext) -> None:
            ctx.db.execute(insert, (order.id, order.n))
            if hang and order.n == 0:
                release.wait()

    async with memory_world.running(service, stop_grace=0.05) as first:
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(20)))
        await eventually(lambda: first["payments"].stats.retries > 1 and first["payments"].stats.handled == 19)
        async with memory_world.running(service, stop_grace=0.05) as second:
            await eventually(lambda: len(owned(second["payments"])) == 2)
            await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(20, 40)))
            await eventually(lambda: second["payments"].stats.handled)
            hang = False
            release.set()
            await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == sorted((f"o{n}", n) for n in range(40))
    assert await memory_world.records("dlq.payments") == []


async def test_lost_partitions_are_forgotten_and_their_new_owner_decides(memory_world):
    """Told only afterwards: the other one has taken over in the store already."""
    service, gate = Service("payments", tables=TABLES), asyncio.Event()
    waiting = 0

    @service.on(Placed)
    async def work(order: Placed, ctx: Context) -> None:
        nonlocal waiting
        waiting += 1
        await gate.wait()
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))

    async with memory_world.running(service) as first:
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(20)))
        await eventually(lambda: waiting == 20)
        member = first["payments"]._consumer.membership
        await memory_world.log.write(Tables.leave, *member)  # as if its heartbeats had not come
        lanes = first["payments"]._lanes._lanes
        await eventually(lambda: sum(len(lane) for lane in lanes.values()) == 40)
        assert waiting == 20, "a key's next run waits until the one that counts no more has ended"
        gate.set()
        await memory_world.read_to_the_end(service)
    assert sorted(memory_world.rows("payments")) == sorted((f"o{n}", n) for n in range(20))


async def test_who_lost_partitions_and_lives_is_not_taken_for_dead(memory_world):
    """Lost to nobody: the broker was away for longer than the session. The next owner need not be careful."""
    service = Service("payments")

    @service.on(Placed)
    async def work(order: Placed) -> None: ...

    def owners() -> set[tuple[str, int | None]]:
        return set(memory_world.rows("payments", "SELECT owner, suspect FROM choreo_progress WHERE topic = 'orders'"))

    async with memory_world.running(service) as instances:
        await memory_world.publish(*(Placed(id=f"o{n}") for n in range(20)))
        await memory_world.read_to_the_end(service)
        instance = instances["payments"]
        partitions = sorted(instance._owned)
        for at in partitions:
            await instance._store.suspect(at, 7)
        assert {suspect for _, suspect in owners()} == {7}
        await instance._ownership.lost(partitions)
        await eventually(lambda: owners() == {("", None)})
        taken = await instance._ownership.take_over(partitions)
        assert taken.keys() == set(partitions)
        assert {owned.alone for owned in instance._owned.values()} == {False}
        assert memory_world.rows("payments", "SELECT sum(deaths) FROM choreo_progress") == [(0,)]


async def test_what_a_dead_owner_left_keeps_its_order_though_another_new_owner_is_slow(memory_world):
    """The last row holds records of all partitions; those before them are in rows of the one that publishes nothing, too."""
    log, service = memory_world.log, Service("payments")

    @service.on(Placed)
    async def work(order: Placed) -> None: ...

    names = ["orders", "payments", "retry.payments", "dlq.payments"]
    await log.create_topics([Topic(name=name, partitions=4) for name in names])
    orders = [TopicPartition("orders", number) for number in range(4)]
    store = SqliteStore(memory_world.folder / "payments.db")
    await store.open("payments")
    taken = (await store.take_over(orders)).progress

    def emitted(at: TopicPartition, value: bytes) -> NewRecord:
        return NewRecord("payments", b"k%d" % at.partition, value, [])

    for at in orders:
        await store.commit(Effects({at: taken[at]}, outbox=[emitted(at, b"1")]))
    await store.commit(Effects(taken, outbox=[emitted(at, b"2") for at in orders]))
    await store.close()

    slow = log.consumer(["orders", "retry.payments"], group="payments")
    polling = asyncio.create_task(poll_for_ever(slow))
    await eventually(lambda: slow.assignment >= set(orders))
    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        await eventually(lambda: len(instance._owned.keys() & set(orders)) == 2 and not instance._publisher.rows)
        values = defaultdict(list)
        for record in await memory_world.records("payments"):
            values[record.key].append(record.value)
    polling.cancel()
    await slow.close()
    assert values == {b"k%d" % at.partition: [b"1", b"2"] for at in orders}


async def poll_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.poll()


# --- how much it holds ------------------------------------------------------------------------------------------------


async def test_a_slow_handler_keeps_twenty_thousand_records_waiting_in_the_log(memory_world):
    service, gate = Service("payments", concurrency=10), asyncio.Event()

    @service.on(Placed)
    async def slow(order: Placed) -> None:
        await gate.wait()

    for first in range(0, 20_000, 5_000):
        await memory_world.publish(*(Placed(id=f"o{n % 50}", n=n) for n in range(first, first + 5_000)))
    async with memory_world.running(service, max_in_flight=100) as instances:
        instance = instances["payments"]
        await eventually(lambda: instance._pressure.load >= 100)
        for _ in range(100):
            await asyncio.sleep(0)
        assert instance._pressure.load == 100
        assert sum(len(lane) for lane in instance._lanes._lanes.values()) == 100
        gate.set()
        await eventually(lambda: instance.stats.handled > 1_000)
        assert instance._pressure.load <= 100


async def test_large_records_are_bounded_by_their_bytes(memory_world, monkeypatch):
    monkeypatch.setattr("choreo.runtime.backpressure._MOST_BYTES", 100_000)
    monkeypatch.setattr("choreo.runtime.reader._CHUNK", 10)  # what is read before the first one has been weighed
    service, gate = Service("payments", concurrency=10), asyncio.Event()

    @service.on(Placed)
    async def slow(order: Placed) -> None:
        await gate.wait()

    await memory_world.publish(*(Placed(id=f"{n}".zfill(10_000), n=n) for n in range(100)))
    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        await eventually(lambda: instance._pressure.load >= 10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert instance._pressure.load <= 20
        gate.set()
        await eventually(lambda: instance.stats.handled == 100)
