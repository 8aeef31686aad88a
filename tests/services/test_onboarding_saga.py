"""The onboarding over days and weeks of virtual time: a person, reminders, an expiry, and restarts in between."""

from __future__ import annotations

from typing import get_args

import pytest

from choreo.testing import Saga, World, running
from choreo.testing.link import Point
from services.onboarding import accounts, databases, mail, services, tenants
from services.onboarding.databases import database_of
from services.onboarding.events import (
    AccountActivated,
    AccountClosed,
    AccountRequested,
    AccountVerified,
    ClosedBecause,
    DatabaseDropped,
    DatabaseProvisioned,
    TenantCreated,
    TenantDeleted,
    VerificationRefused,
    VerificationReminded,
    WelcomeSent,
)

ADA = AccountRequested(account_id="a-1", company="Ada & Co.", email="ada@example.com")
VERIFIED = AccountVerified(account_id="a-1", administrator="grace")
READY = {"AccountRequested", "TenantCreated", "DatabaseProvisioned", "WelcomeSent"}


async def mails(world: World, account_id: str = "a-1") -> list[str]:
    rows = await world.fetch(mail.mail, "SELECT kind FROM mails WHERE account_id = ? ORDER BY rowid", (account_id,))
    return [row[0] for row in rows]


async def existing(world: World) -> tuple[list[str], list[str]]:
    """The names that are taken, and the databases that are there."""
    names = await world.fetch(tenants.tenants, "SELECT tenant FROM tenants ORDER BY tenant")
    found = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'documents%' ORDER BY name"
    return [row[0] for row in names], [row[0] for row in await world.fetch(databases.databases, found)]


async def undone(world: World) -> tuple[int, int]:
    """How many names and databases were taken back."""
    (deleted,) = await world.fetch(tenants.tenants, "SELECT count(*) FROM deleted_tenants")
    (dropped,) = await world.fetch(databases.databases, "SELECT count(*) FROM dropped_databases")
    return deleted[0], dropped[0]


async def verify(world: World, saga: Saga) -> None:
    await world.publish(VERIFIED, correlation_id=saga.correlation_id)
    await world.settle()


async def test_an_account_is_reminded_of_twice_and_then_verified() -> None:
    async with running(services) as world:
        saga = await world.publish(ADA)
        await world.settle()
        assert set(saga.types) == READY
        assert await mails(world) == ["welcome"]
        for hours, reminders in ((23, 0), (2, 1), (46, 1), (2, 2), (24 * 4, 2)):
            await world.advance(f"{hours}h")
            assert len(saga.emitted(VerificationReminded)) == reminders
        assert saga.outcome is None
        await verify(world, saga)
        assert saga.emitted(AccountActivated) == [AccountActivated(account_id="a-1", administrator="grace")]
        await world.advance("60d")
        assert saga.outcome == "completed"
        assert await mails(world) == ["welcome", "reminder", "reminder", "activated"]
        assert await existing(world) == (["ada-co"], [database_of("a-1")])
        assert await undone(world) == (0, 0)


async def test_who_is_verified_at_once_is_never_reminded_of() -> None:
    async with running(services) as world:
        saga = await world.publish(ADA)
        await world.settle()
        await verify(world, saga)
        await world.advance("60d")
        assert await mails(world) == ["welcome", "activated"]


async def test_whom_nobody_verifies_leaves_nothing_behind() -> None:
    async with running(services) as world:
        saga = await world.publish(ADA)
        await world.advance("13d")
        assert saga.outcome is None
        await world.advance("2d")
        assert saga.emitted(AccountClosed) == [AccountClosed(account_id="a-1", because=ClosedBecause.NOT_VERIFIED)]
        undoing = {event.type: event.compensates for event in saga.events if event.compensates}
        done = {event.type: event.id for event in saga.events}
        assert undoing == {"TenantDeleted": done["TenantCreated"], "DatabaseDropped": done["DatabaseProvisioned"]}
        assert await existing(world) == ([], [])
        assert await undone(world) == (1, 1)
        assert await mails(world) == ["welcome", "reminder", "reminder", "closed"]
        await verify(world, saga)
        (refused,) = saga.emitted(VerificationRefused)
        assert refused.reason == "the account is closed"
        assert (await mails(world))[-1] == "refused"
        await world.advance("60d")
        assert saga.outcome == "failed"
        assert saga.emitted(AccountActivated) == []


async def test_a_verification_that_was_made_in_time_counts_though_it_arrives_late() -> None:
    async with running(services) as world:
        saga = await world.publish(ADA)
        await world.advance("13d")
        await world.advance("86399s")
        world.delay(AccountVerified, "20s", to=accounts.accounts)
        await verify(world, saga)
        await world.advance("10s")
        assert saga.outcome is None, "two weeks are over, and what is under way is waited for"
        await world.advance("15s")
        assert saga.outcome == "completed"
        await world.advance("30d")
        assert await undone(world) == (0, 0)


async def test_a_name_that_is_taken_closes_the_second_account_alone() -> None:
    async with running(services) as world:
        first = await world.publish(ADA)
        await world.settle()
        second = await world.publish(AccountRequested(account_id="a-2", company="ada co", email="other@example.com"))
        third = await world.publish(AccountRequested(account_id="a-3", company="***", email="third@example.com"))
        await world.settle()
        for saga in (second, third):
            assert saga.outcome == "failed"
            (closed,) = saga.emitted(AccountClosed)
            assert closed.because == ClosedBecause.NAME_REFUSED
            assert saga.emitted(WelcomeSent) == []
        assert await existing(world) == (["ada-co"], [database_of("a-1")])
        await verify(world, first)
        assert first.outcome == "completed"
        await world.advance("60d")
        assert (first.outcome, second.outcome) == ("completed", "failed")


async def test_a_database_that_cannot_be_made_closes_the_account_after_four_weeks() -> None:
    async with running(services, dead_letters="keep") as world:
        world.fail(databases.provision, ConnectionError, times=99)
        saga = await world.publish(ADA)
        await world.advance("27d")
        assert (saga.outcome, [letter.handler for letter in saga.dead_letters]) == (None, ["provision"])
        await world.advance("2d")
        assert saga.emitted(AccountClosed) == [AccountClosed(account_id="a-1", because=ClosedBecause.NOT_READY)]
        assert saga.emitted(TenantDeleted) == [TenantDeleted(account_id="a-1", tenant="ada-co")]
        assert await undone(world) == (1, 0)
        assert await mails(world) == ["closed"]


async def test_a_database_service_that_is_away_for_forty_days_leaves_no_database() -> None:
    async with running(services) as world:
        world.hold(AccountRequested, to=databases.databases)
        saga = await world.publish(ADA)
        await world.advance("40d")
        assert saga.outcome == "failed"
        await world.release(AccountRequested, to=databases.databases)
        await world.settle()
        assert len(saga.emitted(DatabaseProvisioned)) == len(saga.emitted(DatabaseDropped))
        assert await existing(world) == ([], [])


STEPS = ("1d", "2d", "10d", "1.5d", "0.5d", "15d")
"""Thirty days: to each reminder, to just before and after the expiry, and to the end."""


async def walk(*, restarts: bool, verified_after: str) -> tuple[str, object]:
    """Thirty days of one account, with a restart of everything at each step if wanted."""
    async with running(services) as world:

        async def restart() -> None:
            for service in services if restarts else ():
                await world.crash(service)
            await world.settle()

        if restarts:
            for service in services:
                world.crash_at(service, "after commit", times=5)
        saga = await world.publish(ADA)
        await world.settle()
        for days in STEPS:
            await restart()
            if days == verified_after:
                await verify(world, saga)
                await restart()
            await world.advance(days)
        told = sorted((event.type, event.event, event.service, event.time[:13]) for event in saga.events)
        return str(told), (await existing(world), await undone(world), await mails(world))


@pytest.mark.parametrize("verified_after", ["1d", "2d", "10d", "never"])
async def test_thirty_days_are_the_same_with_a_restart_of_everything_at_each_step(verified_after: str) -> None:
    straight = await walk(restarts=False, verified_after=verified_after)
    assert await walk(restarts=True, verified_after=verified_after) == straight


@pytest.mark.parametrize("point", get_args(Point))
@pytest.mark.parametrize("service", services, ids=lambda service: service.name)
@pytest.mark.parametrize("is_verified", [True, False])
async def test_a_service_that_is_killed_loses_and_doubles_nothing(
    point: Point, service: object, is_verified: bool
) -> None:
    async with running(services) as world:
        for event in (TenantCreated, WelcomeSent, AccountClosed):
            world.duplicate(event)
        saga = await world.publish(ADA)
        world.crash_at(service, point, times=2)  # type: ignore[arg-type] # a service of this world
        await world.settle()
        world.crash_at(service, point, times=2)  # type: ignore[arg-type]
        if is_verified:
            await verify(world, saga)
        await world.advance("30d")
        rows = await world.fetch(accounts.accounts, "SELECT account_id, outcome FROM outcomes")
        reminders = [] if is_verified else ["reminder"] * 2
        assert await mails(world) == ["welcome", *reminders, "activated" if is_verified else "closed"]
        assert rows == [("a-1", "active" if is_verified else "not_verified")]
        assert await undone(world) == ((0, 0) if is_verified else (1, 1))
        assert await existing(world) == ((["ada-co"], [database_of("a-1")]) if is_verified else ([], []))
        assert saga.outcome == ("completed" if is_verified else "failed")
