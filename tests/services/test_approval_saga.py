"""The approval over days of virtual time: people who answer, who do not, and who answer too late."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

import pytest

from choreo import Service
from choreo.testing import Saga, World, running
from choreo.testing.link import Point
from services.approval import buying, desk, services
from services.approval.events import (
    AnswerRefused,
    ApprovalAnswered,
    ApprovalAsked,
    PurchaseApproved,
    PurchaseFulfilled,
    PurchaseRejected,
    PurchaseRequested,
)


def wanted(amount: str, employee: str = "ada") -> PurchaseRequested:
    return PurchaseRequested(purchase_id="p-1", employee=employee, article="a robot arm", amount=Decimal(amount))


async def answer(world: World, saga: Saga, manager: str, *, approved: bool) -> None:
    said = ApprovalAnswered(purchase_id="p-1", manager=manager, approved=approved)
    await world.publish(said, correlation_id=saga.correlation_id)
    await world.settle()


def asked(saga: Saga) -> list[str]:
    return [event.manager for event in saga.emitted(ApprovalAsked)]


async def bought(world: World) -> int:
    ((times,),) = await world.fetch(buying.buying, "SELECT count(*) FROM bought")
    return int(times)


@pytest.mark.parametrize(("amount", "employee"), [("500.00", "ada"), ("90000.00", "barbara")])
async def test_what_is_cheap_or_for_the_head_is_bought_without_asking(amount: str, employee: str) -> None:
    async with running(services) as world:
        saga = await world.publish(wanted(amount, employee))
        await world.settle()
        assert saga.types == ["PurchaseRequested", "PurchaseApproved", "PurchaseFulfilled"]
        assert (saga.outcome, await bought(world)) == ("completed", 1)


async def test_a_manager_who_approves_ends_the_wait() -> None:
    async with running(services) as world:
        saga = await world.publish(wanted("500.01"))
        await world.advance("47h")
        assert (asked(saga), saga.outcome) == (["grace"], None)
        await answer(world, saga, "grace", approved=True)
        assert saga.emitted(PurchaseFulfilled) == [PurchaseFulfilled(purchase_id="p-1", article="a robot arm")]
        await world.advance("30d")
        assert (asked(saga), saga.outcome) == (["grace"], "completed")


async def test_a_manager_who_rejects_ends_it_too() -> None:
    async with running(services) as world:
        saga = await world.publish(wanted("500.01"))
        await answer(world, saga, "grace", approved=False)
        await world.advance("30d")
        assert (asked(saga), saga.outcome, await bought(world)) == (["grace"], "failed", 0)


async def test_without_an_answer_it_goes_up_level_by_level_and_ends() -> None:
    async with running(services) as world:
        saga = await world.publish(wanted("5000"))
        for hours, people in ((47, 1), (2, 2), (46, 2), (2, 3), (46, 3)):
            await world.advance(f"{hours}h")
            assert asked(saga) == ["grace", "edsger", "barbara"][:people]
        assert saga.outcome is None
        await world.advance("2h")
        assert saga.emitted(PurchaseRejected) == [
            PurchaseRejected(purchase_id="p-1", by="nobody", reason="nobody has answered")
        ]
        await world.advance("30d")
        assert (saga.outcome, await bought(world)) == ("failed", 0)


@pytest.mark.parametrize("first", ["grace", "edsger"])
async def test_after_an_escalation_either_may_answer_and_the_second_is_refused(first: str) -> None:
    second = {"grace": "edsger", "edsger": "grace"}[first]
    async with running(services) as world:
        saga = await world.publish(wanted("5000"))
        await world.advance("49h")
        await answer(world, saga, first, approved=True)
        await answer(world, saga, second, approved=False)
        await world.advance("30d")
        assert saga.emitted(AnswerRefused) == [
            AnswerRefused(purchase_id="p-1", manager=second, reason=f"{first} has approved it already")
        ]
        assert [approved.by for approved in saga.emitted(PurchaseApproved)] == [first]
        assert (saga.outcome, await bought(world), len(asked(saga))) == ("completed", 1, 2)


async def test_two_answers_at_the_same_moment_have_one_outcome() -> None:
    async with running(services) as world:
        saga = await world.publish(wanted("5000"))
        await world.advance("49h")
        for manager, approved in (("grace", False), ("edsger", True)):
            said = ApprovalAnswered(purchase_id="p-1", manager=manager, approved=approved)
            await world.publish(said, correlation_id=saga.correlation_id)
        await world.settle()
        assert (saga.outcome, await bought(world)) == ("failed", 0)
        (refused,) = saga.emitted(AnswerRefused)
        assert refused.reason == "grace has rejected it already"


async def test_an_answer_that_comes_with_the_escalation_has_one_outcome_too() -> None:
    """Given in time, and under way when the next one is asked or nobody is left to be asked."""
    async with running(services) as world:
        saga = await world.publish(wanted("5000"))
        await world.advance("143h")
        assert len(asked(saga)) == 3
        await world.advance("3599s")
        world.delay(ApprovalAnswered, "1h", to=desk.desk)
        await answer(world, saga, "grace", approved=True)
        await world.advance("2h")
        assert saga.emitted(PurchaseApproved) == []
        assert (saga.outcome, len(saga.emitted(AnswerRefused))) == ("failed", 1)
        assert "nobody has rejected it already" in saga.emitted(AnswerRefused)[0].reason


async def test_who_was_not_asked_decides_nothing() -> None:
    async with running(services) as world:
        saga = await world.publish(wanted("5000"))
        await world.settle()
        for stranger in ("alan", "edsger"):
            await answer(world, saga, stranger, approved=True)
        assert [refused.reason for refused in saga.emitted(AnswerRefused)] == [
            "alan was not asked",
            "edsger was not asked",
        ]
        assert saga.outcome is None


@pytest.mark.parametrize("point", get_args(Point))
@pytest.mark.parametrize("service", services, ids=lambda service: service.name)
async def test_a_service_that_is_killed_loses_and_doubles_nothing(point: Point, service: Service) -> None:
    async with running(services) as world:
        for event in (ApprovalAsked, ApprovalAnswered, PurchaseApproved):
            world.duplicate(event)
        saga = await world.publish(wanted("5000"))
        world.crash_at(service, point, times=2)
        await world.advance("49h")
        world.crash_at(service, point, times=2)
        await answer(world, saga, "edsger", approved=True)
        for each in services:
            await world.crash(each)
        await answer(world, saga, "grace", approved=False)
        await world.advance("30d")
        assert (asked(saga), saga.outcome, await bought(world)) == (["grace", "edsger"], "completed", 1)
        notices = await world.fetch("approval-notices", "SELECT type_name FROM notices ORDER BY type_name")
        assert [row[0] for row in notices] == ["AnswerRefused", "ApprovalAsked", "ApprovalAsked", "PurchaseFulfilled"]
