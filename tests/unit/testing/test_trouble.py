"""What a test can do to services in one line: copies, delays, failures, crashes."""

from __future__ import annotations

import pytest

from choreo import ConfigurationError, Context, Retry, Service
from choreo.testing import running
from tests.unit.testing.samples import TABLES, Declined, GatewayError, Paid, Placed, Reserved, Shipped, Shop

POINTS = ["before handler", "after handler", "before commit", "after commit", "after publish"]


async def effects(world, service) -> list[tuple[str, str]]:
    return await world.fetch(service, "SELECT id, what FROM effects ORDER BY id")


async def test_a_duplicate_has_no_second_effect():
    shop = Shop()
    async with running(shop.services) as world:
        world.duplicate(Placed)
        world.duplicate(Paid, times=1)
        await world.publish(Placed(id="o-1"))
        await world.publish(Placed(id="o-2"))
        await world.settle()
        assert sorted(await effects(world, shop.payments)) == [("o-1", "charge"), ("o-2", "charge")]
        assert sorted(await effects(world, shop.shipping)) == [("o-1", "ship"), ("o-2", "ship")]
        assert len(world.emitted(Placed)) == 2, "a copy is not an event of its own"
        assert await lying(world, "orders") == 4
        assert await lying(world, "payments") == 3


async def lying(world, topic: str) -> int:
    """How many records lie in a topic."""
    topics = await world.log.topics()
    from choreo.log.port import TopicPartition

    ends = await world.log.end_offsets([TopicPartition(topic, n) for n in range(topics[topic].partitions)])
    return sum(ends.values())


async def test_a_doubled_effect_would_show():
    service = Service("careless", transactional=True)
    seen = []

    @service.on(Placed)
    async def handle(order: Placed) -> None:
        seen.append(order.id)

    async with running(service) as world:
        world.duplicate(Placed)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert seen == ["o-1", "o-1"], "a transactional service has no inbox"


async def test_delayed_events_arrive_later():
    shop = Shop()
    async with running(shop.services) as world:
        world.delay(Paid, "5s")
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Reserved)
        assert await effects(world, shop.shipping) == []
        await world.advance("4s")
        assert await effects(world, shop.shipping) == []
        await world.advance("1s")
        assert await effects(world, shop.shipping) == [("o-1", "ship")]


async def test_held_events_arrive_when_they_are_released_and_only_where_they_are_held():
    shop = Shop()
    async with running(shop.services) as world:
        world.hold(Placed, to=shop.payments)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert [await effects(world, service) for service in shop.services] == [[], [("o-1", "reserve")], []]
        await world.advance("1h")
        assert world.emitted(Paid) == []
        await world.release(Placed)
        await world.settle()
        assert world.emitted(Shipped) == [Shipped(id="o-1")]
        with pytest.raises(ConfigurationError, match="no Placed is held up"):
            await world.release(Placed)


async def test_order_within_a_partition_is_kept_behind_a_held_event():
    service, seen = Service("reader"), []

    @service.on(Paid, Declined)
    async def note(event: Paid | Declined) -> None:
        seen.append(type(event).__name__)

    async with running(service) as world:
        world.hold(Paid)
        await world.publish(Paid(id="o-1"))
        await world.publish(Declined(id="o-1"))
        await world.settle()
        assert seen == []
        await world.release(Paid)
        await world.settle()
        assert seen == ["Paid", "Declined"]


@pytest.mark.parametrize("after", [False, True])
async def test_failing_calls_leave_no_effect(after):
    shop = Shop()
    async with running(shop.services) as world:
        world.fail(shop.charge, GatewayError("away"), times=2, after=after)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert await effects(world, shop.payments) == []
        await world.advance("20s")
        assert await effects(world, shop.payments) == [("o-1", "charge")]
        assert world.emitted(Paid) == [Paid(id="o-1")]


async def test_a_handler_of_a_thread_fails_too():
    service = Service("blocking", tables=TABLES)

    @service.on(Placed, retry=Retry(attempts=2, delay=0, max_delay=0))
    def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    async with running(service) as world:
        world.fail("pay", GatewayError)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1")]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_hangs_is_ended_at_its_timeout(is_async):
    service, attempts = Service("slow"), []

    if is_async:

        @service.on(Placed, timeout="20s", retry=Retry(delay=0, max_delay=0))
        async def pay(order: Placed, ctx: Context) -> Paid:
            attempts.append(world.now)
            return Paid(id=order.id)
    else:

        @service.on(Placed, timeout="20s", retry=Retry(delay=0, max_delay=0))
        def pay(order: Placed) -> Paid:
            attempts.append(world.now)
            return Paid(id=order.id)

    async with running(service) as world:
        begun = world.now
        world.hang(pay)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert attempts == [], "it hangs, and that is still enough to settle"
        await world.advance("19s")
        assert attempts == []
        await world.advance("10s")
        assert len(attempts) == 1
        assert 20 <= (attempts[0] - begun).total_seconds() <= 25
        assert world.emitted(Paid) == [Paid(id="o-1")]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_crash_at_any_point_changes_nothing_in_the_end(point, times):
    shop = Shop()
    async with running(shop.services) as world:
        world.crash_at(shop.payments, point, times=times)
        saga = await world.publish(Placed(id="o-1"))
        await world.settle()
        assert await effects(world, shop.payments) == [("o-1", "charge")]
        assert saga.outcome == "completed"
        assert world.emitted(Paid) == [Paid(id="o-1")]
        assert world.crashes == {"payments": 1 if point == "after commit" else times}, (
            "what is committed is not done again"
        )


@pytest.mark.parametrize("point", ["before handler", "after handler"])
async def test_an_instance_dies_while_a_thread_works_for_it(point):
    service = Service("blocking", tables=TABLES)

    @service.on(Placed)
    def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    async with running(service) as world:
        world.crash_at(service, point)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1")]
        assert world.crashes == {"blocking": 1}


@pytest.mark.parametrize("point", ["before handler", "after handler", "before commit", "after commit", "after publish"])
async def test_a_transactional_service_crashes_and_emits_once(point):
    service = Service("forward", transactional=True)

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    async with running(service) as world:
        world.crash_at(service, point)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert await lying(world, "payments") == 1
        assert world.crashes == {"forward": 1}


async def test_stores_survive_a_crash():
    shop = Shop()
    async with running(shop.services) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        await world.crash(shop.payments)
        await world.crash("stock")
        await world.publish(Placed(id="o-2"))
        await world.settle()
        assert await effects(world, shop.payments) == [("o-1", "charge"), ("o-2", "charge")]
        assert world.crashes == {"payments": 1, "stock": 1}


async def test_a_record_that_kills_each_time_becomes_a_dead_letter():
    shop = Shop()
    async with running(shop.services) as world:
        world.crash_at(shop.payments, "before handler", times=4)
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert [(letter.kind, letter.service) for letter in world.dead_letters] == [("killer", "payments")]


async def test_a_deadline_that_kills_each_time_becomes_a_dead_letter():
    """Nothing else comes meanwhile: no record can be the reason, and none tells when it is over."""
    service = Service("expiry")
    called = []

    @service.deadline(Placed, within="1h", unless=(Shipped,))
    async def expire(order: Placed) -> None:
        called.append(order.id)

    async with running(service) as world:
        await world.publish(Placed(id="o-1"))
        await world.publish(Placed(id="o-2"))
        await world.settle()
        world.crash_at(service, "before handler", times=6)
        await world.advance("2h")
        await world.settle()
        (letter,) = world.dead_letters
        assert (letter.kind, letter.handler) == ("killer", "expire")
        assert {*called, letter.key} == {"o-1", "o-2"}, "the other one is called"
        assert len(called) == len(set(called))


async def test_a_crash_that_a_deadline_is_not_to_blame_for_leaves_it_alone():
    service = Service("expiry")
    called = []

    @service.deadline(Placed, within="1h", unless=(Shipped,))
    async def expire(order: Placed) -> None:
        called.append(order.id)

    async with running(service) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        for _ in range(4):
            await world.crash(service)
            await world.settle()
        world.crash_at(service, "before handler", times=1)
        await world.advance("2h")
        await world.settle()
        assert (called, world.dead_letters, await lying(world, "retry.expiry")) == (["o-1"], [], 0)


async def test_who_is_meant_must_be_there():
    shop = Shop()
    async with running(shop.services) as world:
        with pytest.raises(ConfigurationError, match="'nobody' is no handler of this world"):
            world.fail("nobody", GatewayError)
        with pytest.raises(ConfigurationError, match="service 'nobody' is not in this world"):
            await world.crash("nobody")
        with pytest.raises(ConfigurationError, match="service 'nobody' is not in this world"):
            await world.fetch("nobody", "SELECT 1")


async def one_bad_order(then: Exception | None = None, **options) -> None:
    """An order at which the payment fails for good, and nobody looks at its dead letter."""
    shop = Shop()
    async with running(shop.services, **options) as world:
        world.fail(shop.charge, KeyError("x"))
        await world.publish(Placed(id="o-1"))
        await world.settle()
        if then is not None:
            raise then


async def test_dead_letters_that_nobody_asks_for_fail_the_test():
    with pytest.raises(AssertionError, match=r"Placed o-1, fatal at payments\.charge after 1 calls.*KeyError"):
        await one_bad_order()
    await one_bad_order(dead_letters="keep")
    with pytest.raises(ZeroDivisionError):
        await one_bad_order(ZeroDivisionError())
