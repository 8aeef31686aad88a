import asyncio

import pytest

from choreo.errors import LogError
from choreo.log.memory import MemoryLog
from choreo.log.port import NewRecord, Topic, TopicPartition

PLACE = TopicPartition("t", 0)


def record(value: bytes) -> NewRecord:
    return NewRecord("t", b"k", value, [("h", b"1")])


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


async def test_the_clock_given_decides_timestamps_and_retention() -> None:
    clock = Clock()
    async with MemoryLog(now=clock) as log:
        await log.create_topics([Topic(name="t", partitions=1, settings={"retention.ms": "100"})])
        await log.producer().append([record(b"1")])
        clock.now = 1_050
        await log.producer().append([record(b"2")])
        assert await log.offsets_at(1_001, [PLACE]) == {PLACE: 1}
        clock.now = 1_101
        assert await log.beginning_offsets([PLACE]) == {PLACE: 1}
        (found,) = await log.consumer(["t"]).poll()
        assert (found.offset, found.timestamp) == (1, 1_050)
        clock.now = 10_000
        assert await log.beginning_offsets([PLACE]) == await log.end_offsets([PLACE]) == {PLACE: 2}


async def test_everybody_who_holds_it_shares_it_and_the_last_one_closes_it() -> None:
    log = MemoryLog()
    async with log:
        async with log:
            await log.create_topics([Topic(name="t", partitions=1)])
            consumer = log.consumer(["t"], group="g")
        await log.producer().append([record(b"1")])
        assert [r.value for r in await consumer.poll()] == [b"1"]
    assert consumer.assignment == frozenset()
    async with log:
        assert [r.value for r in await log.consumer(["t"]).poll()] == [b"1"]


async def test_changing_a_records_headers_does_not_change_the_log() -> None:
    async with MemoryLog() as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        written = record(b"1")
        await log.producer().append([written])
        written.headers.clear()
        (first,) = await log.consumer(["t"]).poll()
        first.headers.append(("added", b""))
        (second,) = await log.consumer(["t"]).poll()
        assert second.headers == [("h", b"1")]


async def test_nobody_keeps_the_event_loop_for_himself() -> None:
    async with MemoryLog() as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        producer, consumer = log.producer(), log.consumer(["t"])
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(10):
            await producer.append([record(b"1")])
            await consumer.poll(1)
        counting.cancel()
        assert turns >= 20


async def test_a_member_that_cannot_say_that_it_leaves_closes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise LogError("the log is damaged")

    async with MemoryLog() as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        await log.producer().append([record(b"1")])
        consumer = log.consumer(["t"], group="g")
        await consumer.poll()
        monkeypatch.setattr(log, "write", refuse)
        await consumer.close()
        assert log.consumers == []
