"""Sagas as tests look at them: events in causal order, the outcome, the tree."""

from __future__ import annotations

from choreo import Context, Event, Failure, Service
from choreo.log.port import NewRecord
from choreo.testing import running
from tests.unit.testing.samples import Declined, Paid, Placed, Shipped, Shop


class Unavailable(Failure, topic="stock", key="id"):
    id: str


class Refunded(Event, topic="payments", key="id", ends="failed"):
    id: str


class Welcomed(Event, topic="mails", key="id"):
    id: str


def undoing() -> list[Service]:
    payments, stock = Service("payments"), Service("stock")

    @payments.on(Placed)
    async def charge(order: Placed) -> Paid:
        return Paid(id=order.id)

    @payments.compensates(charge, on=(Unavailable,))
    async def refund(paid: Paid, failure: Unavailable) -> Refunded:
        return Refunded(id=paid.id)

    @stock.on(Paid)
    async def reserve(paid: Paid) -> Unavailable:
        return Unavailable(id=paid.id)

    return [payments, stock]


async def test_events_know_their_causes_and_what_they_undo():
    async with running(undoing()) as world:
        saga = await world.publish(Placed(id="o-1"))
        await world.settle()
        placed, paid, unavailable, refunded = saga.events
        assert [event.type for event in saga.events] == saga.types == ["Placed", "Paid", "Unavailable", "Refunded"]
        assert placed.causation is None
        assert placed.service == "test"
        assert paid.event == Paid(id="o-1")
        assert paid.causation == placed.id
        assert unavailable.causation == paid.id
        assert refunded.compensates == paid.id
        assert refunded.service == "payments"
        assert saga.outcome == "failed"
        assert saga.emitted(Paid) == [Paid(id="o-1")]
        assert saga.tree().splitlines() == [
            f"saga {saga.correlation_id}: failed",
            "└─ Placed o-1, from test",
            "   └─ Paid o-1, from payments",
            "      └─ Unavailable o-1, from stock",
            "         └─ Refunded o-1, from payments, undoes Paid, ends it as failed",
        ]


async def test_two_different_outcomes_are_a_conflict():
    shop = Shop()
    async with running(shop.services) as world:
        saga = await world.publish(Placed(id="o-1"))
        await world.settle()
        assert saga.outcome == "completed"
        await world.publish(Declined(id="o-1"), correlation_id=saga.correlation_id)
        assert saga.outcome == "conflict"
        assert world.saga(saga.correlation_id).outcome == "conflict"


async def test_sagas_are_told_apart_and_children_know_their_parents():
    service = Service("shop")

    @service.on(Placed)
    async def welcome(order: Placed, ctx: Context) -> Paid | Welcomed:
        ctx.start_saga(Welcomed(id=order.id))
        return Paid(id=order.id)

    async with running(service) as world:
        first = await world.publish(Placed(id="o-1"))
        await world.settle()
        own = await world.publish(Placed(id="o-2"), parent=first.correlation_id)
        begun = {saga.correlation_id: saga for saga in world.sagas}
        (child,) = [saga for saga in world.sagas if saga.types == ["Welcomed"]]
        assert set(begun) == {first.correlation_id, child.correlation_id, own.correlation_id}
        assert child.parent == own.parent == first.correlation_id
        assert first.parent is None


async def test_a_saga_shows_its_dead_letters():
    shop = Shop()
    async with running(shop.services) as world:
        world.fail(shop.charge, KeyError("x"))
        saga = await world.publish(Placed(id="o-1"))
        other = await world.publish(Placed(id="o-2"))
        await world.settle()
        assert [letter.handler for letter in saga.dead_letters] == ["charge"]
        assert saga.dead_letters == world.dead_letters
        assert other.dead_letters == []
        assert "dead letter: Placed o-1, fatal at payments.charge after 1 calls: builtins.KeyError" in saga.tree()


async def test_records_that_no_bus_would_publish_can_be_written():
    shop = Shop()
    async with running(shop.services) as world:
        await world.log.producer().append([NewRecord("orders", b"k", b"garbage", [("ce_type", b"Placed")])])
        await world.settle()
        assert sorted((letter.service, letter.kind) for letter in world.dead_letters) == [
            ("payments", "undecodable"),
            ("stock", "undecodable"),
        ]
        assert [event.event for saga in world.sagas for event in saga.events] == [None]
        assert "dead letter" in world.story()


async def test_events_of_classes_that_nobody_here_has_are_plain_data():
    service = Service("shop")

    @service.on(Placed)
    async def pay(order: Placed) -> None: ...

    async with running(service) as world:
        saga = await world.publish(Shipped(id="o-1"))
        world._journal.classes.clear()
        assert saga.events[0].event == {"id": "o-1"}
        assert saga.outcome is None
