"""Deadlines and reminders, over virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from choreo import Context, Event, Failure, Retry, Service, Settings, connect
from choreo.errors import OvertakenError
from choreo.log import open_log
from choreo.runtime.run import running as really_running
from choreo.testing import World, running
from choreo.testing.store import LinkedStore
from tests.integration.runtime_world import AT_ONCE
from tests.support import eventually

TABLES = "CREATE TABLE IF NOT EXISTS effects (id TEXT, n INTEGER)"


class Ordered(Event, topic="orders", key="id"):
    """What sets timers."""

    id: str
    n: int = 0


class Sent(Event, topic="parcels", key="id"):
    """What stops them."""

    id: str


class Rejected(Failure, topic="parcels", key="id"):
    """What stops them too."""

    id: str


class Expired(Event, topic="expiries", key="id"):
    """What a deadline emits."""

    id: str
    n: int = 0


def orders(**options) -> Service:
    service = Service("orders", tables=TABLES)

    @service.deadline(Ordered, **({"within": "15m", "unless": (Sent, Rejected)} | options))
    async def expire(order: Ordered, ctx: Context) -> Expired:
        await ctx.db.execute("INSERT INTO effects VALUES (?, ?)", (order.id, order.n))
        return Expired(id=order.id, n=order.n)

    return service


async def called(world: World) -> list[tuple[str, int]]:
    return await world.fetch("orders", "SELECT id, n FROM effects ORDER BY rowid")


async def timers(world: World) -> int:
    return (await world.fetch("orders", "SELECT count(*) FROM choreo_timers"))[0][0]


async def test_it_is_called_when_the_time_is_over_and_not_before():
    async with running(orders()) as world:
        saga = await world.publish(Ordered(id="o1", n=1))
        await world.advance("14m")
        assert await called(world) == []
        assert await timers(world) == 1
        await world.advance("61s")
        assert await called(world) == [("o1", 1)]
        await world.advance("2d")
        assert await called(world) == [("o1", 1)], "once"
        assert [event.type for event in saga.events] == ["Ordered", "Expired"]
        assert await timers(world) == 0


@pytest.mark.parametrize("stops", [Sent, Rejected])
@pytest.mark.parametrize("first", [False, True])
async def test_what_stops_it_does_so_before_and_after_it_is_set(stops, first):
    async with running(orders()) as world:
        if first:
            world.hold(Ordered)
        saga = await world.publish(Ordered(id="o1"))
        await world.settle()
        await world.publish(stops(id="o1"), correlation_id=saga.correlation_id)
        await world.settle()
        if first:
            await world.release(Ordered)
        await world.publish(Ordered(id="o2"))
        await world.settle()
        assert await timers(world) == 1
        await world.advance("16m")
        assert await called(world) == [("o2", 0)]


async def test_what_was_produced_in_time_stops_it_though_it_comes_hours_later():
    async with running(orders()) as world:
        stopped = await world.publish(Ordered(id="o1"))
        await world.publish(Ordered(id="o2"))
        await world.advance("10m")
        world.hold(Sent, to="orders")
        await world.publish(Sent(id="o1"), correlation_id=stopped.correlation_id)
        await world.advance("3h")
        assert await called(world) == [], "both wait: either may have been stopped"
        await world.release(Sent)
        await world.advance("1s")
        assert await called(world) == [("o2", 0)]


async def test_what_was_produced_too_late_does_not_stop_it():
    async with running(orders()) as world:
        saga = await world.publish(Ordered(id="o1"))
        await world.settle()
        world.hold(Ordered, to="orders")
        other = await world.publish(Ordered(id="o2"))
        await world.advance("16m")
        assert await called(world) == [("o1", 0)]
        for late in (saga, other):
            await world.publish(Sent(id="late"), correlation_id=late.correlation_id)
        await world.release(Ordered)
        await world.advance("1s")
        assert await called(world) == [("o1", 0), ("o2", 0)]


async def test_reminders_come_at_their_pace_and_end():
    async with running(orders(within="1h", every="2h", times=3)) as world:
        await world.publish(Ordered(id="o1"))
        for hours, calls in ((1, 1), (2, 2), (2, 3), (2, 3), (48, 3)):
            await world.advance(hours * 3600 + 1)
            assert len(await called(world)) == calls
        assert len(world.emitted(Expired)) == 3, "each an event of its own"
        assert await timers(world) == 0


async def test_reminders_end_with_what_stops_them():
    async with running(orders(within=None, every="1d", times=5)) as world:
        saga = await world.publish(Ordered(id="o1"))
        await world.advance("2d")
        await world.advance("1h")
        await world.publish(Sent(id="o1"), correlation_id=saga.correlation_id)
        await world.advance("9d")
        assert len(await called(world)) == 2


async def test_each_new_event_of_its_own_class_puts_it_off():
    async with running(orders(unless=(Ordered, Sent))) as world:
        saga = await world.publish(Ordered(id="o1"))
        for number in (1, 2):
            await world.advance("10m")
            await world.publish(Ordered(id="o1", n=number), correlation_id=saga.correlation_id)
        await world.advance("14m")
        assert await called(world) == []
        await world.advance("1d")
        assert await called(world) == [("o1", 2)]


async def test_an_earlier_event_of_its_own_class_that_comes_later_changes_nothing():
    async with running(orders(unless=(Ordered, Sent))) as world:
        world.hold(Ordered, to="orders")
        saga = await world.publish(Ordered(id="o1", n=1))
        await world.advance("10m")
        await world.publish(Ordered(id="o2", n=2), correlation_id=saga.correlation_id)
        await world.advance("1m")
        await world.release(Ordered)
        await world.advance("1d")
        assert await called(world) == [("o2", 2)]


async def test_a_call_that_fails_is_tried_again_and_may_become_a_dead_letter():
    service = orders(within="1m", retry=AT_ONCE)
    async with running(service) as world:
        world.fail("expire", ConnectionError, after=True)
        await world.publish(Ordered(id="o1"))
        await world.advance("2m")
        assert await called(world) == [("o1", 0)]
        world.fail("expire", ConnectionError, times=3)
        await world.publish(Ordered(id="o2"))
        await world.advance("2m")
        assert await called(world) == [("o1", 0)]
        assert await timers(world) == 0
        (letter,) = world.dead_letters
        assert (letter.handler, letter.kind) == ("expire", "exhausted")


async def test_a_call_that_waits_in_the_retry_topic_comes_back_as_a_call():
    async with running(orders(within="1m", retry=Retry(delay="10s", in_place="1s")), seed=3) as world:
        world.fail("expire", ConnectionError, after=True)
        await world.publish(Ordered(id="o1"))
        await world.advance("61s")
        assert await timers(world) == 0, "it is in the topic"
        assert await called(world) == []
        await world.advance("1m")
        assert await called(world) == [("o1", 0)]
        assert len(world.emitted(Expired)) == 1


async def test_a_call_in_the_retry_topic_can_still_be_stopped_by_what_was_produced_in_time():
    async with running(orders(within="1m", retry=Retry(delay="1h", in_place="1s", max_delay="1h"))) as world:
        saga = await world.publish(Ordered(id="o1"))
        world.hold(Sent)
        await world.advance("30s")
        await world.release(Sent)
        world.fail("expire", ConnectionError)
        await world.advance("1m")
        produced = world.clock.now_ms() - 40_000  # its producer was slow to get it into the log
        await _publish_late(world, Sent(id="o1"), saga.correlation_id, produced)
        await world.advance("3h")
        assert await called(world) == []


async def _publish_late(world: World, event: Event, saga: str, produced_ms: int) -> None:
    from choreo.runtime.clock import rfc3339
    from choreo.wire.ids import new_event_id

    await world.bus._prepare({type(event)})
    record = world.bus._record(event, None, saga, None, new_event_id())
    headers = [(name, rfc3339(produced_ms).encode() if name == "ce_time" else text) for name, text in record.headers]
    await world.bus._producer.append([record._replace(headers=headers)])
    await world.settle()


@pytest.mark.parametrize("point", ["before handler", "after handler", "before commit", "after commit", "after publish"])
async def test_it_is_called_once_whatever_dies_where(point):
    async with running(orders(every="1h", times=3)) as world:
        await world.publish(Ordered(id="o1"))
        await world.settle()
        for _ in range(3):
            world.crash_at("orders", point)
            await world.advance("61m")
        await world.advance("1d")
        assert len(await called(world)) == 3
        assert len(world.emitted(Expired)) == 3
        assert world.crashes["orders"] == 3


async def test_timers_outlive_everything_on_files(tmp_path: Path):
    """A real log, a real store and the machine's clock: the service is away when its timer is due."""
    settings = Settings(
        log=f"sqlite:///{tmp_path}/log.db", store=f"sqlite:///{tmp_path}/{{service}}.db", registry=str(tmp_path / "s")
    )
    service, calls = Service("orders"), []

    @service.deadline(Ordered, within="300ms", unless=(Sent,), grace=0)
    async def expire(order: Ordered) -> None:
        calls.append(order.id)

    async with open_log(settings.log) as log, connect(settings, log=log) as bus:
        async with really_running([service], settings, log=log) as instances:
            await bus.publish(Ordered(id="o1"), correlation_id="s1")
            await bus.publish(Ordered(id="o2"), correlation_id="s2")
            await eventually(lambda: instances["orders"].stats.handled == 0 and instances["orders"]._timers._next_ms)
        assert calls == []
        await bus.publish(Sent(id="o2"), correlation_id="s2")
        async with really_running([service], settings, log=log):
            await eventually(lambda: calls == ["o1"], lambda: calls)


async def test_many_at_once_are_each_called_once(tmp_path: Path):
    """While some are called and not yet committed, the next look finds their timers still there."""
    settings = Settings(
        log=f"sqlite:///{tmp_path}/log.db", store=f"sqlite:///{tmp_path}/{{service}}.db", registry=str(tmp_path / "s")
    )
    service, calls, many = Service("orders", concurrency=3), [], 300

    @service.deadline(Ordered, within=0, grace=0)
    async def expire(order: Ordered) -> None:
        await asyncio.sleep(0.001)
        calls.append(order.id)

    async with (
        open_log(settings.log) as log,
        connect(settings, log=log) as bus,
        really_running([service], settings, log=log) as instances,
    ):
        await bus.publish_many([Ordered(id=f"o{number}") for number in range(many)])
        await eventually(lambda: len(calls) >= many, lambda: len(calls))
        await eventually(lambda: none_left(instances["orders"]))
    assert sorted(calls) == sorted(f"o{number}" for number in range(many)), "nothing was undone and done again"


async def none_left(instance) -> bool:
    return await instance._store.next_due(list(instance._owned)) is None


# --- what a review found --------------------------------------------------------------------------------------------


async def test_reminders_end_though_one_is_being_tried_again_when_what_stops_them_comes():
    retry = Retry(delay="30m", in_place="1s", max_delay="30m", within="1d")
    async with running(orders(within="1h", every="1h", times=4, retry=retry), seed=5) as world:
        saga = await world.publish(Ordered(id="o1"))
        world.fail("expire", ConnectionError)
        await world.advance("61m")
        await world.publish(Sent(id="o1"), correlation_id=saga.correlation_id)
        await world.advance("10h")
        assert len(await called(world)) == 1, "the one that was due before"
        assert await timers(world) == 0


async def test_reminders_end_though_the_event_that_sets_them_is_read_after_what_stops_them():
    async with running(orders(within="1h", every="1h", times=4)) as world:
        world.hold(Ordered)
        saga = await world.publish(Ordered(id="o1"))
        await world.advance("90m")
        await world.publish(Sent(id="o1"), correlation_id=saga.correlation_id)
        await world.settle()
        await world.release(Ordered)
        await world.advance("10h")
        assert len(await called(world)) == 1
        assert await timers(world) == 0


@pytest.mark.parametrize("fails", [1, 2, 3])
async def test_reminders_after_one_that_has_become_a_dead_letter_still_come(fails):
    async with running(orders(within="1h", every="1h", times=4, retry=Retry(attempts=1))) as world:
        await world.publish(Ordered(id="o1"))
        world.fail("expire", ValueError, times=fails)
        await world.advance("10h")
        assert len(world.emitted(Expired)) == 4 - fails
        assert len(world.dead_letters) == fails
        assert await timers(world) == 0


async def test_two_events_of_one_millisecond_put_off_each_other_only_once():
    async with running(orders(unless=(Ordered,))) as world:
        saga = await world.publish(Ordered(id="o1", n=1))
        await world.publish(Ordered(id="o1", n=2), correlation_id=saga.correlation_id)
        await world.advance("2h")
        assert len(await called(world)) == 1


async def test_what_a_failed_commit_takes_back_still_stops_it(monkeypatch):
    """That an unless event was handled in an undone transaction tells nothing: it is handled again, and late."""
    commit, fails = LinkedStore.commit, []

    async def failing(self, effects):
        if effects.notes and fails:
            fails.pop()
            for _ in range(3):  # others look meanwhile
                await world.clock.sleep(1.0)
            world.delay(Sent, "12m", to="orders")
            raise OvertakenError("another saga of this batch was overtaken")
        return await commit(self, effects)

    monkeypatch.setattr(LinkedStore, "commit", failing)
    async with running(orders()) as world:
        saga = await world.publish(Ordered(id="o1"))
        await world.publish(Ordered(id="o2"))
        world.hold(Sent, to="orders")
        await world.advance("10m")
        await world.publish(Sent(id="o1"), correlation_id=saga.correlation_id)
        await world.advance("10m")
        assert await called(world) == []
        fails.append(True)
        await world.release(Sent)
        await world.advance("5m")
        assert await called(world) == [("o2", 0)]
        assert not fails
