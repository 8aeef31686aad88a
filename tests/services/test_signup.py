"""Signing up, on every log, with services that die."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from choreo.testing import running
from services.books import rows
from services.signup import demo, services
from services.signup.audit import findings, users
from services.signup.emails import emails
from services.signup.events import GreetingSent, ProfileCreated
from services.trial import publish
from tests.services.flow_processes import deaths, in_processes, settings_at

USERS = users(7, 20)


async def test_a_user_gets_a_greeting_and_a_profile_and_is_counted():
    async with running(services) as world:
        saga = await world.publish(USERS[0])
        await world.settle()
        assert sorted(saga.types) == ["GreetingSent", "ProfileCreated", "UserRegistered"]
        assert world.emitted(GreetingSent) == [GreetingSent(user_id="u-7-00001", email="1@7.example")]
        assert world.emitted(ProfileCreated) == [ProfileCreated(user_id="u-7-00001", handle="user-7-00001")]
        assert await world.fetch("signup-emails", "SELECT text FROM outgoing") == [("Welcome, User 7 00001!",)]
        counts = await world.fetch("signup-analytics", "SELECT what, n FROM counts ORDER BY what")
        assert counts == [("GreetingSent", 1), ("ProfileCreated", 1), ("UserRegistered", 1)]


async def test_one_branch_that_is_down_does_not_hold_up_the_other():
    async with running(services) as world:
        world.hang(emails.handlers["greet"].function)
        await world.publish(USERS[0])
        await world.settle()
        assert len(world.emitted(ProfileCreated)) == 1
        assert world.emitted(GreetingSent) == []
        await world.advance("10m")
        assert len(world.emitted(GreetingSent)) == 1


@pytest.mark.parametrize(("service", "point"), deaths(services))
async def test_a_service_that_dies_anywhere_loses_and_doubles_nothing(service, point):
    async with running(services) as world:
        world.crash_at(service, point)
        world.duplicate(type(USERS[0]), times=5)
        for user in USERS:
            await world.publish(user)
        await world.advance("1m")
        assert world.crashes == {service.name: 1}
        greeted = await world.fetch("signup-emails", "SELECT email FROM outgoing ORDER BY email")
        assert greeted == sorted((user.email,) for user in USERS)
        made = await world.fetch("signup-profiles", "SELECT user_id FROM profiles ORDER BY user_id")
        assert made == [(user.user_id,) for user in USERS]
        counts = await world.fetch("signup-analytics", "SELECT DISTINCT n FROM counts")
        assert counts == [(len(USERS),)]


async def test_the_demo_finds_nothing_wrong(log_url, tmp_path):
    result = await demo.run(settings_at(log_url, tmp_path), count=40)
    assert result.findings == []
    assert result.data["events"] == 3 * 40 + result.data["duplicates_published"]


async def test_the_demo_would_tell_what_is_wrong(tmp_path):
    await demo.run(settings_at("memory://", tmp_path), count=3, seed=7)
    assert findings(f"sqlite:///{tmp_path}/{{service}}.db", users(7, 3)) == []
    told = findings(f"sqlite:///{tmp_path}/{{service}}.db", users(7, 4))
    assert "profiles of u-7-00004 user-7-00004: 0, expected 1" in told
    assert any("greetings to" in sentence for sentence in told)


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_process_that_is_killed_loses_and_doubles_nothing(log_url: str, tmp_path: Path):
    settings, registered = settings_at(log_url, tmp_path), users(8, 400)
    async with in_processes("services.signup", services, settings) as flow:
        sent = partial(rows, settings.store, "signup-emails", "SELECT 1 FROM outgoing LIMIT 1")
        (victim,) = flow.of(emails)
        await flow.kill_while(publish(flow.bus, registered, duplicates=0.1), victim, once=sent)
        await flow.settle(partial(findings, settings.store, registered))
        assert len(await flow.events("signup.emails")) == len(registered)
