"""One consumer: polling, seeking, pausing, waiting."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from choreo.errors import ChoreoError, LogError
from choreo.log.port import TopicPartition
from tests.conformance.log_world import World, collect, nothing_more, record, until


async def test_without_a_group_everything_is_read(world: World) -> None:
    topic, other = await world.topic(), await world.topic()
    for n in range(4):
        await world.fill(topic, 3, n)
    await world.fill(other, 3, 1)
    consumer = world.consumer(topic, other)
    assert len(await collect(consumer, 15)) == 15
    assert consumer.assignment == {TopicPartition(name, n) for name in (topic, other) for n in range(4)}
    with pytest.raises(ChoreoError, match="group"):
        await consumer.commit({TopicPartition(topic, 0): 1})


async def test_poll_gives_no_more_than_asked_and_waits_no_longer(world: World) -> None:
    topic = await world.topic()
    consumer = world.consumer(topic)
    assert await consumer.poll(10, 0.01) == []
    assert await consumer.poll(10, 0) == []
    await world.fill(topic, 25)
    found = []
    while len(found) < 25:
        records = await consumer.poll(10, 5)
        assert 1 <= len(records) <= 10
        found += records
    assert [r.offset for r in found] == list(range(25))


async def test_a_waiting_poll_wakes_up(world: World) -> None:
    topic = await world.topic()
    consumer = world.consumer(topic, group=world.group())
    await until(lambda: len(consumer.assignment) == 4, "the assignment")
    waiting = asyncio.create_task(consumer.poll())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await world.fill(topic, 1)
    async with asyncio.timeout(10):
        assert [r.value for r in await waiting] == [b"0"]


async def test_a_busy_partition_does_not_starve_the_others(world: World) -> None:
    topic = await world.topic()
    # More than the megabyte that a Kafka client fetches of one partition at a time.
    await world.producer().append([record(topic, b"x" * 3_000, partition=0) for _ in range(1_000)])
    await world.fill(topic, 10, 3)
    consumer = world.consumer(topic)
    found = await collect(consumer, 1_010, max_records=50)
    assert min(n for n, r in enumerate(found) if r.partition == 3) < 1_000


async def test_earliest_and_latest(world: World) -> None:
    topic = await world.topic()
    await world.fill(topic, 3)
    early = world.consumer(topic, group=world.group(), start="earliest")
    late = world.consumer(topic, group=world.group(), start="latest")
    assert len(await collect(early, 3)) == 3
    await until(lambda: len(late.assignment) == 4, "the assignment")
    await nothing_more(late)
    await world.producer().append([record(topic, b"new", partition=n) for n in range(4)])
    assert sorted(r.partition for r in await collect(late, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("group", ["grouped", None])
async def test_seek_goes_back_and_forth(world: World, group: str | None) -> None:
    topic = await world.topic()
    await world.fill(topic, 20, 1)
    consumer = world.consumer(topic, group=group and world.group())
    place = TopicPartition(topic, 1)
    assert [r.offset for r in await collect(consumer, 5, max_records=5)] == list(range(5))
    await consumer.seek(place, 2)
    assert [r.offset for r in await collect(consumer, 3, max_records=3)] == [2, 3, 4]
    await consumer.seek(place, 18)
    assert [r.offset for r in await collect(consumer, 2)] == [18, 19]
    await consumer.seek(place, 0)
    assert [r.offset for r in await collect(consumer, 20)] == list(range(20))
    await nothing_more(consumer)


async def test_pausing_loses_and_repeats_nothing(world: World) -> None:
    topic = await world.topic()
    for n in range(4):
        await world.fill(topic, 50, n)
    consumer = world.consumer(topic, group=world.group())
    paused = [TopicPartition(topic, 1), TopicPartition(topic, 2)]
    found = await collect(consumer, 10, max_records=10)
    await consumer.pause(paused)
    during = await collect(consumer, 100 - sum(r.partition in {0, 3} for r in found))
    assert {r.partition for r in during} <= {0, 3}
    await nothing_more(consumer)
    assert set(paused) <= consumer.assignment
    await world.fill(topic, 50, 1)
    await nothing_more(consumer)
    await consumer.resume(paused)
    found += during + await collect(consumer, 250 - len(found) - len(during))
    for n in range(4):
        assert [r.offset for r in found if r.partition == n] == list(range(100 if n == 1 else 50))
    await nothing_more(consumer)


async def test_seek_while_paused(world: World) -> None:
    topic = await world.topic()
    await world.fill(topic, 10, 0)
    consumer = world.consumer(topic, group=world.group())
    place = TopicPartition(topic, 0)
    await collect(consumer, 10)
    await consumer.pause([place])
    await consumer.seek(place, 7)
    await nothing_more(consumer)
    await consumer.resume([place])
    assert [r.offset for r in await collect(consumer, 3)] == [7, 8, 9]


async def test_a_cancelled_poll_loses_nothing(world: World) -> None:
    topic = await world.topic()
    consumer = world.consumer(topic, group=world.group())
    await until(lambda: len(consumer.assignment) == 4, "the assignment")
    producer = world.producer()
    total = min(world.many, 3_000)

    async def write() -> None:
        for n in range(0, total, 10):
            await producer.append([record(topic, b"%d" % i, b"%d" % i) for i in range(n, n + 10)])

    writing = asyncio.create_task(write())
    found = []
    for turn in range(1_500):
        polling = asyncio.create_task(consumer.poll(50))
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        if turn % 3 == 0:
            await asyncio.sleep(0.001)
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            found += await polling
    await writing
    found += await collect(consumer, total - len(found))
    for n in range(4):
        offsets = [r.offset for r in found if r.partition == n]
        assert offsets == list(range(len(offsets)))


async def test_closing_ends_a_waiting_poll(world: World) -> None:
    topic = await world.topic()
    consumer = world.consumer(topic, group=world.group())
    await until(lambda: len(consumer.assignment) == 4, "the assignment")
    waiting = asyncio.create_task(consumer.poll())
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        await consumer.close()
        await consumer.close()
        outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert outcome == [] or isinstance(outcome, LogError)
    assert consumer.assignment == frozenset()
    with pytest.raises(LogError):
        await consumer.poll(timeout=1)
