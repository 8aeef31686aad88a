"""Services on a real broker: transactional ones under rebalances and zombies, and publishing through outages."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from tests.integration.kafka_shop import BOTH, QUICK, Shop, in_order
from tests.support import eventually

pytestmark = pytest.mark.kafka


@pytest.fixture(params=BOTH)
async def shop(request, kafka_bootstrap, tmp_path):
    shop = Shop(kafka_bootstrap, tmp_path, BOTH[request.param])
    await shop.make_topics()
    return shop


@contextlib.asynccontextmanager
async def publishing(shop: Shop, first: int, last: int, step: int = 20):
    """Publish these orders little by little, meanwhile."""
    task = asyncio.create_task(shop.publish(first, last, step))
    yield
    await task


async def test_instances_that_come_and_go_under_load_double_and_lose_nothing(shop):
    async with shop.running() as steady, publishing(shop, 0, 600):
        for _ in range(3):
            async with shop.running() as other:
                await eventually(lambda other=other: len(other[shop.name]._owned) == 2)
        assert await shop.handled(600)
        assert not steady[shop.name].failed
    numbers = await shop.handled(600)
    assert in_order(numbers, 600)


async def test_of_a_zombie_nothing_is_committed(shop):
    """It is stopped with a transaction under way, or about to begin one, for longer than its session."""
    with shop.process() as zombie:
        await shop.publish(0, 20)
        await shop.handled(20)
        async with publishing(shop, 20, 220):
            await shop.handled(60)
            zombie.send_signal(signal.SIGSTOP)
        async with shop.running() as successor:
            async with asyncio.timeout(40):
                while len(successor[shop.name]._owned) != 4:  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(0.05)
            await shop.handled(220)
            async with publishing(shop, 220, 300):
                zombie.send_signal(signal.SIGCONT)
            await eventually(lambda: len(successor[shop.name]._owned) == 2, "the zombie comes back as a member")
            await shop.publish(300, 400)
            numbers = await shop.handled(400)
    assert in_order(numbers, 400)


async def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(shop):
    async with shop.running(group_instance_id="a") as steady:
        async with shop.running(group_instance_id="b") as other:
            await eventually(lambda: len(steady[shop.name]._owned) == len(other[shop.name]._owned) == 2)
            before, theirs = dict(steady[shop.name]._owned), set(other[shop.name]._owned)
            await shop.publish(0, 100)
            await shop.handled(100)
        await shop.publish(100, 200)
        async with shop.running(group_instance_id="b") as other:
            await eventually(lambda: set(other[shop.name]._owned) == theirs)
            numbers = await shop.handled(200)
            assert steady[shop.name]._owned == before, "the other member has not noticed"
    assert in_order(numbers, 200)


async def test_a_broker_that_freezes_dies_and_comes_back_leaves_no_gap_in_what_is_published(kafka_broker, tmp_path):
    shop = Shop(kafka_broker.bootstrap, tmp_path, QUICK)
    await shop.make_topics()
    async with shop.running(transactional=False) as instances:
        async with publishing(shop, 0, 300):
            await shop.handled(30)
            kafka_broker.freeze()
            await asyncio.sleep(2)  # that this time passes is the condition
            kafka_broker.thaw()
        async with publishing(shop, 300, 600):
            await shop.handled(330)
        await asyncio.to_thread(kafka_broker.kill)
        await asyncio.to_thread(kafka_broker.start)
        async with publishing(shop, 600, 900):
            numbers = await shop.handled(900)
        await eventually(lambda: not instances[shop.name]._publisher.backlog)
    assert in_order(list(dict.fromkeys(numbers)), 900), "copies may be there, nothing else"


async def test_a_stop_while_the_broker_is_down_ends_in_time_and_the_next_one_publishes_the_rest(kafka_broker, tmp_path):
    shop = Shop(kafka_broker.bootstrap, tmp_path, QUICK)
    await shop.make_topics()
    running = shop.running(transactional=False)
    instances = await running.__aenter__()
    await shop.publish(0, 200)
    await eventually(lambda: instances[shop.name].stats.handled > 20)
    await asyncio.to_thread(kafka_broker.kill)
    async with asyncio.timeout(20):  # the grace, or a last commit and leaving the group, which nobody answers
        await running.__aexit__(None, None, None)
    await asyncio.to_thread(kafka_broker.start)
    async with shop.running(transactional=False):
        numbers = await shop.handled(200)
    assert in_order(list(dict.fromkeys(numbers)), 200)
