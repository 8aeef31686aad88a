"""Handlers that take many events at once: how batches form, what their handler sees, what it emits."""

from __future__ import annotations

import asyncio

import pytest

from choreo import BatchContext, Service, SyncBatchContext, connect
from choreo.log.port import NewRecord
from choreo.wire.envelope import read
from tests.integration.batch_world import BIG, Lake, in_order, orders, turning
from tests.integration.runtime_clock import TurnedClock
from tests.integration.runtime_faults import Faults, FaultyLog
from tests.integration.runtime_world import AT_ONCE, TABLES, Paid, Placed, World, crash, owned
from tests.support import eventually


@pytest.fixture
def clock(monkeypatch) -> TurnedClock:
    """The clock of instances started from now on."""
    turned = TurnedClock()
    monkeypatch.setattr("choreo.runtime.instance.SystemClock", lambda: turned)
    return turned


# --- how they form ----------------------------------------------------------------------------------------------------


async def test_a_batch_goes_when_it_is_full_or_its_first_event_is_old_enough(memory_world, clock):
    lake = Lake(max_size=4, max_age="10s")
    async with memory_world.running(lake.service) as instances:
        await memory_world.publish(*orders(10, keys=1))
        await eventually(lambda: instances["payments"]._pressure.load == 2)
        assert lake.calls == [[0, 1, 2, 3], [4, 5, 6, 7]]
        clock.turn(9.9)
        await asyncio.sleep(0.02)
        assert len(lake.calls) == 2
        clock.turn(0.1)
        await memory_world.read_to_the_end(lake.service)
    assert lake.calls[2:] == [[8, 9]]
    assert in_order(memory_world.rows("payments"), range(10), keys=1)


async def test_batches_of_a_partition_hold_its_events_in_order_and_those_of_a_key_only_its_own(world):
    by_partition, by_key = Lake(max_size=BIG, max_age="50ms"), Lake(max_size=BIG, max_age="50ms", per="key")
    for lake in (by_partition, by_key):
        async with world.running(lake.service):
            pass
    await world.publish(*orders(200))
    async with world.running(by_partition.service):
        await world.read_to_the_end(by_partition.service)
    assert in_order(world.rows("payments"), range(200))
    assert len(by_partition.calls) == len({record.partition for record in await world.records("orders")})
    (world.folder / "payments.db").unlink()
    async with world.running(by_key.service):
        await world.read_to_the_end(by_key.service)
    assert in_order(world.rows("payments"), range(200))
    assert sorted(by_key.calls) == [list(range(key, 200, 5)) for key in range(5)]


async def test_what_comes_while_a_batch_is_handled_becomes_one_batch(memory_world, clock):
    """However old it grows: a slow handler gets larger batches, not more of them."""
    service, calls, gate = Service("payments"), [], asyncio.Event()

    @service.batch(Placed, max_size=50, max_age="1s")
    async def load(placed: list[Placed]) -> None:
        calls.append([order.n for order in placed])
        await gate.wait()

    async with memory_world.running(service) as instances:
        instance = instances["payments"]
        await memory_world.publish(Placed(id="k", n=0))
        await turning(clock, lambda: len(calls) == 1)
        for n in range(1, 61):
            await memory_world.publish(Placed(id="k", n=n))
            await eventually(lambda n=n: instance._pressure.load == n + 1)
            clock.turn(1)
        gate.set()
        await turning(clock, lambda: instance.stats.handled == 3)
    assert calls == [[0], list(range(1, 51)), list(range(51, 61))]


@pytest.mark.parametrize("per", ["partition", "key"])
async def test_a_batch_that_can_never_become_full_comes_out(memory_world, clock, per):
    """There is room for ten records, so nobody waits for a million of them, nor for their time."""
    lake = Lake(max_size=BIG, max_age="1h", per=per)
    async with memory_world.running(lake.service, max_in_flight=10):
        await memory_world.publish(*orders(200, keys=40))
        await eventually(lambda: sum(map(len, lake.calls)) > 200 - 10)
        await turning(clock, lambda: sum(map(len, lake.calls)) == 200, seconds=3600)
        await memory_world.read_to_the_end(lake.service)
    assert max(map(len, lake.calls)) <= 10
    assert in_order(memory_world.rows("payments"), range(200), keys=40)


async def test_other_handlers_of_the_service_take_their_events_one_by_one(world):
    lake, paid = Lake(max_size=7, max_age="20ms"), []

    @lake.service.on(Paid)
    async def note(event: Paid) -> None:
        paid.append(event.n)

    async with world.running(lake.service):
        await world.publish(*orders(50), *(Paid(id=f"k{n % 5}", n=n) for n in range(50)))
        await world.read_to_the_end(lake.service)
    assert in_order(world.rows("payments"), range(50))
    assert sorted(paid) == list(range(50))
    assert all(len(call) <= 7 for call in lake.calls)


async def test_events_of_several_classes_come_in_one_list(memory_world, clock):
    service, calls = Service("payments"), []

    @service.batch(Placed, Paid, max_size=BIG, max_age="1s")
    async def load(events: list[Placed | Paid]) -> None:
        calls.append([type(event) for event in events])

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="k"), Paid(id="k"), Placed(id="k", n=1))
        await eventually(lambda: instances["payments"]._pressure.load == 3)
        clock.turn(1)
        await memory_world.read_to_the_end(service)
    assert sorted(calls, key=len) == [[Paid], [Placed, Placed]], "a partition is one of a topic"


# --- what the handler sees --------------------------------------------------------------------------------------------


async def test_the_context_tells_what_all_events_have_in_common(memory_world, clock):
    lake = Lake(max_size=3, max_age="1h", retry=AT_ONCE)
    failures = iter([TimeoutError("gateway"), TimeoutError("gateway"), None])
    lake.spoils = lambda order: next(failures) if order.n == 0 else None
    async with memory_world.running(lake.service):
        sagas = await memory_world.publish(*orders(3, keys=1))
        await memory_world.read_to_the_end(lake.service)
    records = await memory_world.records("orders")
    assert [context.attempt for context in lake.contexts] == [1, 2, 3]
    assert len({context.idempotency_key for context in lake.contexts}) == 1
    last = lake.contexts[-1]
    assert [metadata.correlation_id for metadata in last.metadata] == sagas
    assert last.metadata == tuple(read(record) for record in records)
    assert last.state is None
    at = f"orders/{records[0].partition}"
    assert last.log._context == {
        "service": "payments", "handler": "load", "events": 3, "first": f"{at}@0", "last": f"{at}@2",
    }  # fmt: skip


async def test_idempotency_keys_are_those_of_the_events_whatever_crashes(memory_world, monkeypatch):
    faults, lake = Faults(), Lake(max_size=3, max_age="1h")
    monkeypatch.setattr("choreo.runtime.instance.make_store", planted(faults))
    reached = faults.freeze("commit")
    async with memory_world.running(lake.service) as instances:
        await memory_world.publish(*orders(6, keys=1))
        await reached.wait()
        await crash(instances["payments"])
        faults.none()
    async with memory_world.running(lake.service):
        await memory_world.read_to_the_end(lake.service)
    keys = {}
    for call, context in zip(lake.calls, lake.contexts, strict=True):
        keys.setdefault(tuple(call), set()).add(context.idempotency_key)
    assert len(lake.calls) > 2
    assert sorted(keys) == [(0, 1, 2), (3, 4, 5)]
    assert all(len(found) == 1 for found in keys.values())
    assert len(set.union(*keys.values())) == 2


def planted(faults):
    from choreo.store import make_store
    from tests.integration.runtime_faults import FaultyStore

    return lambda url: FaultyStore(make_store(url), faults)


async def test_blocking_handlers_get_batches_too(memory_world):
    service, calls = Service("payments", tables=TABLES), []

    @service.batch(Placed, max_size=10, max_age="20ms", retry=AT_ONCE)
    def load(placed: list[Placed], ctx: SyncBatchContext) -> list[Paid]:
        calls.append((len(placed), len(ctx.metadata), ctx.attempt))
        ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        if ctx.attempt == 1:
            raise TimeoutError("gateway")
        ctx.log.info("loaded")
        return [Paid(id=order.id, n=order.n) for order in placed]

    async with memory_world.running(service):
        await memory_world.publish(*orders(40))
        await memory_world.read_to_the_end(service)
    assert in_order(memory_world.rows("payments"), range(40))
    assert {attempt for _, _, attempt in calls} == {1, 2}
    assert all(size == told for size, told, _ in calls)
    assert sorted(data["n"] for _, data in await memory_world.events("payments")) == list(range(40))


async def test_the_handler_may_do_with_its_list_what_it_likes(memory_world):
    service, calls = Service("payments"), []

    @service.batch(Placed, max_size=3, max_age="1h", retry=AT_ONCE)
    async def load(placed: list[Placed]) -> None:
        calls.append(len(placed))
        placed.clear()
        if len(calls) == 1:
            raise TimeoutError("gateway")

    async with memory_world.running(service):
        await memory_world.publish(*orders(3, keys=1))
        await memory_world.read_to_the_end(service)
    assert calls == [3, 3]


# --- what it emits ----------------------------------------------------------------------------------------------------


def summing_service() -> Service:
    service = Service("payments", tables=TABLES)

    @service.batch(Placed, max_size=3, max_age="1h")
    async def load(placed: list[Placed], ctx: BatchContext) -> list[Paid]:
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])
        return [Paid(id="sum", n=sum(order.n for order in placed)), Paid(id="count", n=len(placed))]

    return service


async def test_what_is_emitted_begins_sagas_of_its_own_caused_by_the_first_event(memory_world):
    service = summing_service()
    async with memory_world.running(service):
        await memory_world.publish(*orders(6, keys=1))
        await memory_world.read_to_the_end(service)
        placed = [read(record) for record in await memory_world.records("orders")]
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    events = await memory_world.events("payments")
    assert sorted(data["n"] for _, data in events) == [3, 3, 3, 12]
    assert len({about["id"] for about, _ in events}) == 4
    for about, data in events:
        assert about["correlationid"] == about["id"]
        assert about["causationid"] == placed[3 if data["n"] == 12 else 0].event_id or data["id"] == "count"
        assert not {"parentid", "compensates", "traceparent"} & about.keys()
    assert {about["causationid"] for about, _ in events} == {placed[0].event_id, placed[3].event_id}


async def test_a_re_run_emits_the_same_ids(memory_world, monkeypatch):
    faults, service = Faults(), summing_service()
    reached = faults.freeze("appended")
    async with World(FaultyLog(memory_world.log, faults), memory_world.folder).running(service) as instances:
        await memory_world.publish(*orders(6, keys=1))
        await reached.wait()
        await crash(instances["payments"])
        faults.none()
    async with memory_world.running(service):
        await memory_world.read_to_the_end(service)
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    events = await memory_world.events("payments")
    assert len(events) > 4, "the first instance's copies and the second's"
    assert len({about["id"] for about, _ in events}) == 4


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["partition", "key"])
@pytest.mark.parametrize("size", [1, 3, BIG])
async def test_copies_in_one_batch_in_later_ones_and_in_other_partitions_take_effect_once(world, per, size):
    lake = Lake(max_size=size, max_age="30ms", per=per)
    async with world.running(lake.service), connect(world.settings(), log=world.log) as bus:
        for n in range(10):
            for _ in range(3):
                await bus.publish(Placed(id=f"k{n % 3}", n=n), event_id=f"event-{n}")
        copies = [
            NewRecord("orders", f"other{number}".encode(), record.value, record.headers)
            for number, record in enumerate(await world.records("orders"))
        ]
        producer = world.log.producer()
        await producer.append(copies)
        await world.read_to_the_end(lake.service)
        await producer.append(copies)
        await world.read_to_the_end(lake.service)
        await producer.close()
    assert sorted(n for _, n in world.rows("payments")) == list(range(10)), "in which order, copies may decide"
    assert await world.records("dlq.payments") == []


async def test_copies_gathered_in_one_batch_are_told_apart(memory_world, clock):
    lake = Lake(max_size=BIG, max_age="1s")
    async with memory_world.running(lake.service) as instances:
        async with connect(memory_world.settings(), log=memory_world.log) as bus:
            for n in (0, 1, 0, 2, 1):
                await bus.publish(Placed(id="k0", n=n), event_id=f"event-{n}")
        await eventually(lambda: instances["payments"]._pressure.load == 5)
        clock.turn(1)
        await memory_world.read_to_the_end(lake.service)
        assert instances["payments"].stats.duplicates == 2
    assert lake.calls == [[0, 1, 2]]


async def test_a_copy_of_an_event_that_fails_has_its_own_call(memory_world, clock):
    """The first of two copies is a dead letter, so nothing is known of the event when the second has its turn."""
    lake = Lake(lambda order: ValueError("bad") if order.n == 1 else None, max_size=BIG, max_age="1s")
    async with memory_world.running(lake.service) as instances:
        async with connect(memory_world.settings(), log=memory_world.log) as bus:
            for n in (0, 1, 1, 2):
                await bus.publish(Placed(id="k0", n=n), event_id=f"event-{n}")
        await eventually(lambda: instances["payments"]._pressure.load == 4)
        await turning(clock, lambda: instances["payments"].stats.dead_letters == 2)
        await memory_world.read_to_the_end(lake.service)
    assert in_order(memory_world.rows("payments"), [0, 2], keys=1)
    assert len({headers["choreo.dlq.id"] for headers, _ in await memory_world.letters("payments")}) == 1


async def test_copies_that_run_beside_each_other_are_one_effect(memory_world, clock):
    """Should a copy ever run beside the original, what has it goes back, and is handled without it."""
    service, gate, calls = Service("payments", tables=TABLES), asyncio.Event(), []

    @service.batch(Placed, max_size=2, max_age="1s")
    async def load(placed: list[Placed], ctx: BatchContext) -> None:
        calls.append(sorted(order.n for order in placed))
        await gate.wait()
        await ctx.db.execute_many("INSERT INTO effects VALUES (?, ?)", [(order.id, order.n) for order in placed])

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="k", n=0), Placed(id="k", n=1))
        await eventually(lambda: len(calls) == 1)
        instances["payments"]._intake.forget_all()
        await memory_world.publish(Placed(id="other", n=2))
        first, _ = [record for record in await memory_world.records("orders") if record.key == b"k"]
        producer = memory_world.log.producer()
        await producer.append([NewRecord("orders", b"other", first.value, first.headers)])
        await producer.close()
        await eventually(lambda: len(calls) == 2)
        gate.set()
        await memory_world.read_to_the_end(service)
        assert instances["payments"].stats.duplicates == 1
    assert calls == [[0, 1], [0, 2], [2]]
    assert sorted(memory_world.rows("payments")) == [("k", 0), ("k", 1), ("other", 2)]


# --- what is no event of the handler ----------------------------------------------------------------------------------


async def test_records_that_cannot_be_read_tombstones_and_unknown_types_go_their_own_ways(world):
    lake = Lake(max_size=5, max_age="30ms")
    async with world.running(lake.service):
        await world.publish(*orders(5, keys=1))
        record = (await world.records("orders"))[0]
        unknown = [(name, b"Other" if name == "ce_type" else text) for name, text in record.headers]
        fresh = [(name, b"new" if name == "ce_id" else text) for name, text in record.headers]
        producer = world.log.producer()
        await producer.append(
            [
                NewRecord("orders", record.key, b"\xde\xad\xbe\xef", fresh),
                NewRecord("orders", record.key, None, fresh),
                NewRecord("orders", record.key, record.value, unknown),
                NewRecord("orders", None, record.value, fresh),
            ]
        )
        await producer.close()
        await world.publish(*orders(5, keys=1, first=5))
        await world.read_to_the_end(lake.service)
    assert sorted(n for _, n in world.rows("payments")) == sorted([*range(10), 0]), "one event without a key"
    kinds = [headers["choreo.dlq.kind"] for headers, _ in await world.letters("payments")]
    assert kinds == ["undecodable"] * 2


# --- several instances ------------------------------------------------------------------------------------------------


async def test_partitions_that_go_take_what_has_gathered_with_them(memory_world, clock):
    first, second = Lake(max_size=BIG, max_age="1h"), Lake(max_size=BIG, max_age="1s")
    async with memory_world.running(first.service) as instances:
        instance = instances["payments"]
        await memory_world.publish(*orders(40, keys=40))
        await eventually(lambda: instance._pressure.load == 40)
        async with memory_world.running(second.service) as others:
            await eventually(lambda: len(owned(instance)) == len(owned(others["payments"])) == 2)
            kept = instance._pressure.load
            assert 0 < kept < 40
            assert kept == len(instance._intake._under_way), "of the others nothing is kept"
            await eventually(lambda: others["payments"]._pressure.load == 40 - kept)
            await turning(clock, lambda: sum(map(len, second.calls)) == 40 - kept)
        await eventually(lambda: len(owned(instance)) == 4)
        clock.turn(3600)
        await memory_world.read_to_the_end(first.service)
    assert in_order(memory_world.rows("payments"), range(40), keys=40)
    assert sum(map(len, first.calls)) == kept


async def test_instances_that_come_and_go_under_load_double_and_lose_nothing(world):
    lakes, published = [Lake(max_size=20, max_age="20ms") for _ in range(4)], 0
    async with world.running(lakes[0].service):
        for lake in lakes[1:]:
            async with world.running(lake.service, max_in_flight=30) as instances:
                await eventually(lambda instances=instances: len(owned(instances["payments"])) == 2)
                while len(lake.calls) < 3:
                    await world.publish(*orders(50, keys=40, first=published))
                    published += 50
        await world.read_to_the_end(lakes[0].service)
    assert in_order(world.rows("payments"), range(published), keys=40)


async def test_a_stop_leaves_what_has_gathered_for_the_next_start(memory_world, clock):
    lake = Lake(max_size=BIG, max_age="1h")
    async with memory_world.running(lake.service) as instances:
        await memory_world.publish(*orders(10))
        await eventually(lambda: instances["payments"]._pressure.load == 10)
    assert memory_world.rows("payments") == []
    async with memory_world.running(lake.service) as instances:
        await eventually(lambda: instances["payments"]._pressure.load == 10)
        clock.turn(3600)
        await memory_world.read_to_the_end(lake.service)
    assert in_order(memory_world.rows("payments"), range(10))
