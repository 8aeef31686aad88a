"""Sagas of the example services, run for real in worlds of `choreo.testing`: folded at each moment, in any order, with copies."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo import Choreography
from choreo.saga.fold import fold
from choreo.saga.verify import verify
from choreo.saga.why import Group, why
from choreo.testing import running
from services import approval, onboarding, shop
from services.approval.events import ApprovalAnswered, PurchaseRequested
from services.onboarding.events import AccountRequested
from services.shop.orders_generator import orders
from tests.tracker.real import seen

SHOP, APPROVAL, ONBOARDING = (Choreography.of(each.services).graph for each in (shop, approval, onboarding))


class GatewayError(Exception):
    """The gateway gives no answer."""


async def _shop():
    """Orders after a moment and after an hour; some steps are doubled, an instance dies, a charge fails for good."""
    moments = []
    async with running(shop.services, dead_letters="keep") as world:
        world.duplicate(shop.events.PaymentCharged)
        world.crash_at(shop.orders.orders, "after publish")
        first, *others = orders(7, 16)
        world.fail("payments.charge", GatewayError("no answer"), times=5)
        await world.publish(first)
        await world.advance("5m")
        for order in others:
            await world.publish(order)
        await world.settle()
        moments.append(await seen(world, shop.services))
        await world.advance("1h")
        moments.append(await seen(world, shop.services))
    return [(SHOP, *moment) for moment in moments]


async def _approval():
    moments = []
    async with running(approval.services) as world:
        for number in range(3):
            requested = PurchaseRequested(
                purchase_id=f"p-{number}", employee="alan", article="a desk", amount=Decimal(600)
            )
            saga = await world.publish(requested)
            await world.advance("10m")
            if number == 1:
                await world.publish(
                    ApprovalAnswered(purchase_id="p-1", manager="grace", approved=True),
                    correlation_id=saga.correlation_id,
                )
        for time in ("10m", "3d", "30d"):
            await world.advance(time)
            moments.append(await seen(world, approval.services))
    return [(APPROVAL, *moment) for moment in moments]


async def _onboarding():
    moments = []
    async with running(onboarding.services, dead_letters="keep") as world:
        await world.publish(AccountRequested(account_id="a-1", company="Ada & Co", email="ada@example.com"))
        for time in ("1m", "10d", "60d"):
            await world.advance(time)
            moments.append(await seen(world, onboarding.services))
    return [(ONBOARDING, *moment) for moment in moments]


@pytest.fixture(scope="module")
def shops():
    return asyncio.run(_shop())


@pytest.fixture(scope="module")
def approvals():
    return asyncio.run(_approval())


@pytest.fixture(scope="module")
def accounts():
    return asyncio.run(_onboarding())


def states(moment):
    graph, sagas, around = moment
    return [fold(found, graph, around).state for found in sagas.values()]


def test_orders_end_or_say_what_they_wait_for(shops):
    early, late = map(states, shops)
    assert set(early) <= {"running", "waiting", "failed", "compensating", "completed", "compensated"}
    assert set(late) == {"completed", "compensated", "failed"}


def test_purchases_wait_for_answers_of_people(approvals):
    first, second, last = approvals
    graph, sagas, around = first
    told = [fold(found, graph, around) for found in sagas.values()]
    assert {saga.key: saga.state for saga in told} == {"p-0": "waiting", "p-1": "completed", "p-2": "waiting"}
    assert {saga.reason[:46] for saga in told if saga.state == "waiting"} == {
        "waiting for ApprovalAnswered from outside unti"
    }
    assert set(states(second)) == {"waiting", "completed"}
    assert set(states(last)) == {"completed", "compensated"}


def test_accounts_are_reminded_of_until_their_time_is_over(accounts):
    found = [states(moment)[0] for moment in accounts]
    assert found == ["waiting", "waiting", "compensated"]


@pytest.fixture(scope="module")
def sagas(shops, approvals, accounts):
    return [
        (graph, found, around) for graph, all_, around in (*shops, *approvals, *accounts) for found in all_.values()
    ]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_order_and_any_copies_give_the_same_saga(sagas, data):
    graph, found, around = data.draw(st.sampled_from(sagas))
    more = data.draw(st.lists(st.sampled_from(found), max_size=5))
    shuffled = data.draw(st.permutations([*found, *more]))
    assert fold(shuffled, graph, around) == fold(found, graph, around)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_part_of_a_saga_can_be_folded_in_any_order(sagas, data):
    """What a tracker has not read yet, or what retention has removed, is missing anywhere."""
    graph, found, around = data.draw(st.sampled_from(sagas))
    part = data.draw(st.lists(st.sampled_from(found), unique=True, max_size=len(found)))
    saga = fold(part, graph, around)
    assert saga == fold(part[::-1], graph, around)
    assert saga.reason
    assert why(saga, {})
    assert verify(saga) is not None


def test_the_runtime_breaks_no_law(sagas):
    broken = [violation for graph, found, around in sagas for violation in verify(fold(found, graph, around))]
    assert broken == []


def test_every_duty_of_an_ended_saga_is_settled(sagas):
    for graph, found, around in sagas:
        saga = fold(found, graph, around)
        if saga.ended_ms is not None:
            assert not {each.status for each in saga.duties} & {"pending", "retrying", "armed"}
            assert saga.expected == ()
            assert why(saga, {"orders": Group(members=1, lag=0)})[0].startswith(f"The saga is {saga.state}: ")


def test_what_is_declared_is_worked_out_once(sagas):
    graph, found, around = sagas[0]
    assert fold(found, graph, around) == fold(found, Choreography.of(shop.services).graph, around)
