"""Delivery, on every log: hundreds of positions in one saga, in any order, some twice, and a vehicle that falls silent."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from choreo.testing import running
from services.books import rows
from services.delivery import demo, services
from services.delivery.audit import dispatch_findings, dispatched, findings, log_findings, refusal_of
from services.delivery.demo import TOPICS, drive
from services.delivery.events import (
    ContactLost,
    ParcelBooked,
    ParcelDelivered,
    ParcelDispatched,
    Point,
    PositionUpdated,
    RouteRefused,
)
from services.delivery.planning import MOST_GRAMS, metres_between
from services.delivery.sample import parcels
from services.delivery.tracking import tracking
from services.delivery.vehicle import radioed, updates
from services.trial import publish
from tests.services.flow_processes import deaths, in_processes, settings_at

NEAR = Point(latitude=52.6, longitude=13.5)
PARCEL = ParcelBooked(parcel_id="d1", recipient="Ada", destination=NEAR, grams=900)
VIEW = "SELECT parcel_id, sequence, is_handed_over FROM parcels"


async def on_its_way(world, parcel: ParcelBooked = PARCEL) -> ParcelDispatched:
    """A parcel in its vehicle."""
    saga = await world.publish(parcel)
    await world.settle()
    (found,) = [each for each in world.emitted(ParcelDispatched) if each.tracking == saga.correlation_id]
    return found


async def tell(world, parcel: ParcelDispatched, *told: PositionUpdated) -> None:
    for update in told:
        await world.publish(update, correlation_id=parcel.tracking)
    await world.settle()


async def messages(world) -> list[str]:
    return [text for (text,) in await world.fetch("delivery-recipients", "SELECT text FROM messages ORDER BY rowid")]


async def test_a_parcel_is_delivered_after_hundreds_of_positions_in_one_saga():
    async with running(services) as world:
        parcel = await on_its_way(world)
        world.duplicate(PositionUpdated, times=50)
        await tell(world, parcel, *radioed(updates(parcel, 500), seed=1, duplicates=0.2))
        saga = world.saga(parcel.tracking)
        assert saga.types.count("PositionUpdated") > 550
        assert saga.outcome == "completed"
        assert world.emitted(ParcelDelivered) == [ParcelDelivered(parcel_id="d1", sequence=500, position=NEAR)]
        assert await world.fetch(tracking, VIEW) == [("d1", 500, 1)]
        assert await messages(world) == [
            "Your parcel d1 is on its way with berlin-0.",
            "Your parcel d1 has arrived.",
        ]
        await world.advance("1d")
        assert world.emitted(ContactLost) == []


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 2, 3, 3, 1, 1)])
async def test_the_last_position_counts_in_whatever_order_they_come(order):
    async with running(services) as world:
        parcel = await on_its_way(world)
        told = updates(parcel, 4)
        await tell(world, parcel, *(told[sequence - 1] for sequence in order))
        assert await world.fetch(tracking, VIEW) == [("d1", 3, 0)]


@pytest.mark.parametrize("late", [1, 5])
async def test_a_parcel_is_handed_over_once_whatever_its_vehicle_tells_before_and_after(late):
    async with running(services) as world:
        parcel = await on_its_way(world)
        *way, last = updates(parcel, 4)
        onward = PositionUpdated(parcel_id="d1", sequence=late, position=way[0].position)
        await tell(world, parcel, *way, onward, last, last, onward)
        assert len(world.emitted(ParcelDelivered)) == 1
        assert await world.fetch(tracking, VIEW) == [("d1", 4, 1)]


@pytest.mark.parametrize(
    ("parcel", "check"),
    [
        (PARCEL.model_copy(update={"recipient": " "}), "recipient_is_named"),
        (PARCEL.model_copy(update={"grams": MOST_GRAMS + 1}), "weight_is_carried"),
        (PARCEL.model_copy(update={"destination": Point(latitude=0, longitude=0)}), "destination_is_in_reach"),
        (PARCEL.model_copy(update={"recipient": "", "grams": MOST_GRAMS + 1}), "recipient_is_named"),
    ],
)
async def test_the_first_check_that_does_not_pass_is_the_answer(parcel, check):
    async with running(services) as world:
        saga = await world.publish(parcel)
        await world.settle()
        (refused,) = world.emitted(RouteRefused)
        assert refused.check == check
        assert saga.types == ["ParcelBooked", "RouteRefused"]
        assert saga.outcome == "failed"
        assert await messages(world) == [f"We cannot bring your parcel d1: {refused.reason}."]


def test_distances_are_those_of_the_earth():
    berlin, munich = Point(latitude=52.52, longitude=13.405), Point(latitude=48.1372, longitude=11.5756)
    assert metres_between(berlin, munich) == pytest.approx(504_000, rel=0.01)


async def test_a_vehicle_that_falls_silent_is_noticed_after_half_an_hour_once():
    async with running(services) as world:
        parcel = await on_its_way(world)
        told = updates(parcel, 20)
        for update in told[:6]:
            await tell(world, parcel, update)
            await world.advance("20m")
        assert world.emitted(ContactLost) == []
        await world.advance("9m")
        assert world.emitted(ContactLost) == []
        await world.advance("2m")
        silent = ContactLost(parcel_id="d1", sequence=6, position=told[5].position)
        assert world.emitted(ContactLost) == [silent]
        await world.advance("1d")
        assert world.emitted(ContactLost) == [silent], "once for each silence"
        await tell(world, parcel, *told[6:])
        await world.advance("1d")
        assert world.emitted(ContactLost) == [silent]
        assert len(world.emitted(ParcelDelivered)) == 1
        assert "look for it" in (await messages(world))[1]


@pytest.mark.parametrize(("service", "point"), deaths(services))
async def test_a_service_that_dies_anywhere_loses_and_doubles_nothing(service, point):
    booked = parcels(7, 12)
    async with running(services) as world:
        world.crash_at(service, point)
        for parcel in booked:
            await world.publish(parcel)
        await world.advance("1m")
        for parcel in world.emitted(ParcelDispatched):
            await tell(world, parcel, *radioed(updates(parcel, 30), seed=7, duplicates=0.1))
        await world.advance("1m")
        assert world.crashes == {service.name: 1}
        carried = sorted(parcel.parcel_id for parcel in booked if refusal_of(parcel) is None)
        assert sorted(each.parcel_id for each in world.emitted(ParcelDelivered)) == carried
        assert sorted(await world.fetch(tracking, VIEW)) == [(parcel_id, 30, 1) for parcel_id in carried]
        assert len(await messages(world)) == len(booked) + len(carried)
        loads = await world.fetch("delivery-dispatch", "SELECT parcel_id FROM loads ORDER BY parcel_id")
        assert loads == [(parcel_id,) for parcel_id in carried]


async def test_the_demo_finds_nothing_wrong(log_url, tmp_path):
    result = await demo.run(settings_at(log_url, tmp_path), count=12)
    assert result.findings == []
    assert result.data["updates"] > demo.UPDATES * (12 - result.data["refused"])


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_tracker_that_is_killed_on_the_way_loses_and_doubles_nothing(log_url: str, tmp_path: Path):
    settings, booked = settings_at(log_url, tmp_path), parcels(8, 10)
    async with in_processes("services.delivery", services, settings) as flow:
        await publish(flow.bus, booked)
        await flow.settle(partial(dispatch_findings, settings.store, booked))
        on_the_way = dispatched(await flow.events("delivery.dispatches"))
        driving = asyncio.gather(*(drive(flow.bus, parcel, 8, 0.1) for parcel in on_the_way))
        begun = partial(rows, settings.store, "delivery-tracking", "SELECT 1 FROM parcels WHERE sequence > 50 LIMIT 1")
        (victim,) = flow.of(tracking)
        await flow.kill_while(driving, victim, once=begun)
        await flow.settle(partial(findings, settings.store, booked, demo.UPDATES))
        assert log_findings(await flow.events(*TOPICS), booked) == []
