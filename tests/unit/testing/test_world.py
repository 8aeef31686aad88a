"""A world from outside: publishing, settling, time, and what one sees of services."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from choreo import ConfigurationError, Context, Event, Retry, Service
from choreo.log.port import NewRecord
from choreo.testing import NotSettledError, running
from choreo.wire.folder import FolderRegistry
from tests.unit.testing.samples import GatewayError, Paid, Placed, Shipped, Shop


class Ticked(Event, topic="ticks", key="id"):
    id: str


async def test_a_saga_runs_through_all_services(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shop = Shop()
    async with running(shop.services) as world:
        saga = await world.publish(Placed(id="o-1"))
        assert saga.outcome is None
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1")]
        assert saga.types[0] == "Placed"
        assert sorted(saga.types) == ["Paid", "Placed", "Reserved", "Shipped"]
        assert saga.outcome == "completed"
        assert await world.fetch(shop.payments, "SELECT * FROM effects WHERE id = ?", ("o-1",)) == [("o-1", "charge")]
        assert await world.fetch("stock", "SELECT what FROM effects") == [("reserve",)]
    assert list(tmp_path.iterdir()) == [], "no store, log or schema is written to a disk"


async def test_time_moves_only_when_it_is_told_to():
    shop = Shop()
    async with running(shop.services) as world:
        world.fail(shop.charge, GatewayError, times=2)
        before = world.now
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == []
        assert world.now == before == datetime(2024, 1, 1, tzinfo=UTC)
        await world.advance("20s")
        assert world.emitted(Paid) == [Paid(id="o-1")]
        assert (world.now - before).total_seconds() == 20


async def test_time_stops_at_each_moment_at_which_something_is_due():
    seen = []
    service = Service("clock")

    @service.on(Ticked, retry=Retry(attempts=9, delay="1d", max_delay="1d", within="30d", in_place="2d"))
    async def tick(event: Ticked) -> None:
        seen.append(world.now)
        raise GatewayError

    async with running(service, dead_letters="keep") as world:
        await world.publish(Ticked(id="t"))
        await world.advance("30d")
        assert len(seen) == 9
        assert seen == sorted(set(seen)), "each at a moment of its own"
        assert [letter.kind for letter in world.dead_letters] == ["exhausted"]


async def test_a_handler_that_waits_for_what_does_not_come_is_named():
    service, never = Service("stuck"), asyncio.Event()

    @service.on(Placed)
    async def wait(order: Placed) -> None:
        await never.wait()

    async with running(service, patience=0.05) as world:
        await world.publish(Placed(id="o-1"))
        with pytest.raises(NotSettledError, match=r"stuck\.wait is handling Placed o-1"):
            await world.settle()


async def test_what_handlers_wait_for_outside_is_waited_for():
    service = Service("slow")

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        await asyncio.sleep(0.02)
        return Paid(id=order.id)

    @service.on(Paid)
    def ship(paid: Paid) -> Shipped:
        return Shipped(id=paid.id)

    async with running(service) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Shipped) == [Shipped(id="o-1")]


async def test_two_worlds_with_one_seed_are_the_same():
    async def told() -> str:
        shop = Shop()
        async with running(shop.services, seed=7) as world:
            saga = await world.publish(Placed(id="o-1"))
            await world.settle()
            return saga.tree() + repr(saga.events)

    assert await told() == await told()


class Reminded(Event, topic="reminders", key="id"):
    id: str


async def test_deadlines_fire_in_virtual_time_and_thirty_days_are_soon_over():
    service, seen = Service("patient"), []

    @service.deadline(Placed, within="1d", every="1d", times=30, unless=(Shipped,))
    async def remind(order: Placed) -> Reminded:
        seen.append(world.now)
        return Reminded(id=order.id)

    async with running(service) as world:
        begun = world.now
        await world.publish(Placed(id="o-1"))
        await world.publish(Placed(id="o-2"))
        await world.advance("23h")
        assert seen == []
        await world.publish(Shipped(id="o-2"), correlation_id=world.sagas[1].correlation_id)
        await world.advance("30d")
        assert [(moment - begun).days for moment in seen] == list(range(1, 31))
        assert len(world.emitted(Reminded)) == 30


async def test_a_deadline_that_may_still_be_stopped_waits_for_what_is_held_up():
    service, seen = Service("patient"), []

    @service.deadline(Placed, within="1h", unless=(Shipped,))
    async def expire(order: Placed) -> None:
        seen.append(order.id)

    async with running(service) as world:
        saga = await world.publish(Placed(id="o-1"))
        await world.publish(Placed(id="o-2"))
        await world.settle()
        world.hold(Shipped)
        await world.publish(Shipped(id="o-1"), correlation_id=saga.correlation_id)
        await world.advance("30d")
        assert seen == []
        await world.release(Shipped)
        await world.advance("1s")
        assert seen == ["o-2"]


async def test_what_a_web_request_writes_and_publishes_in_one_transaction_is_seen():
    shop = Shop()
    async with running(shop.services) as world:
        async with world.bus.transaction(shop.payments) as tx:
            await tx.db.execute("INSERT INTO effects VALUES ('o-1', 'asked')")
            tx.publish(Placed(id="o-1"))
        await world.settle()
        rows = await world.fetch(shop.payments, "SELECT what FROM effects ORDER BY what")
        assert rows == [("asked",), ("charge",)]
        assert world.emitted(Shipped) == [Shipped(id="o-1")]


async def test_a_lifespan_is_entered_and_left():
    seen = []

    @asynccontextmanager
    async def lifespan():
        seen.append("entered")
        yield "state"
        seen.append("left")

    service = Service("alive", lifespan=lifespan)

    @service.on(Placed)
    async def handle(order: Placed, ctx: Context) -> None:
        seen.append(ctx.state)

    async with running(service) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        await world.crash(service)
    assert seen == ["entered", "state", "left", "entered", "left"]


async def test_a_service_that_cannot_start_says_so_and_leaves_nothing_behind():
    service = Service("broken", tables="CREATE TABLE nonsense (")

    @service.on(Placed)
    async def handle(order: Placed) -> None: ...

    fine = Shop()
    with pytest.raises(ConfigurationError, match="the tables of service 'broken' cannot be made"):
        async with running([*fine.services, service]):
            pass
    assert len(asyncio.all_tasks()) == 1, "only this test is left"


async def test_a_transactional_service_has_no_store_to_look_into():
    service = Service("forward", transactional=True)

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    async with running(service) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1")]
        with pytest.raises(ConfigurationError, match="'forward' is transactional and has no store"):
            await world.fetch(service, "SELECT 1")


async def test_records_of_older_classes_are_read_with_the_schemas_of_a_folder(tmp_path):
    old = {"type": "record", "name": "Placed", "fields": [{"name": "id", "type": "string"}]}
    number = await FolderRegistry(tmp_path).register("orders-Placed", old)
    value = b"\0" + number.to_bytes(4, "big") + b"\x06o-1"
    shop = Shop()
    async with running(shop.services, schemas=tmp_path) as world:
        await world.log.producer().append([NewRecord("orders", b"o-1", value, [("ce_type", b"Placed")])])
        await world.settle()
        assert world.emitted(Shipped) == [Shipped(id="o-1")]
        assert world.emitted(Placed) == [Placed(id="o-1", n=1)]
    assert len([*tmp_path.rglob("*.avsc")]) == 1, "nothing is written there"


async def test_inbox_keys_are_forgotten_in_virtual_time():
    shop = Shop()
    async with running(shop.services) as world:
        await world.publish(Placed(id="o-1"), event_id="one")
        await world.advance("1d")
        await world.publish(Placed(id="o-1"), event_id="one")
        await world.settle()
        assert len(await world.fetch(shop.payments, "SELECT * FROM effects")) == 1
        await world.advance("9d")
        await world.publish(Placed(id="o-1"), event_id="one")
        await world.settle()
        assert len(await world.fetch(shop.payments, "SELECT * FROM effects")) == 2, "the inbox keeps a week"
