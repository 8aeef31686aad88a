"""What the publisher has under way at once, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from choreo.errors import LogUnavailableError, RecordTooLargeError
from choreo.log.port import NewRecord
from choreo.runtime.clock import SystemClock
from choreo.runtime.operations import Operations
from choreo.runtime.publisher import Publisher
from choreo.runtime.stats import Stats
from tests.support import eventually


class Producer:
    """Notes what is begun; each append ends when it is told to."""

    def __init__(self, log):
        self.log = log

    async def append(self, records):
        done = asyncio.get_running_loop().create_future()
        self.log.begun.append([record.value for record in records])
        self.log.ends.append(done)
        await done

    async def close(self):
        for end in self.log.ends:
            if not end.done():
                end.set_exception(LogUnavailableError("broken"))


class Log:
    def __init__(self):
        self.begun, self.ends, self.producers = [], [], 0

    def producer(self, *, gapless):
        assert gapless
        self.producers += 1
        return Producer(self)


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr("choreo.runtime.publisher._FIRST_DELAY", 0.001)
    log, published = Log(), []
    publisher = Publisher(log, SystemClock(), published.extend, Operations("s", Stats()), ("retry.s",))
    running = asyncio.create_task(publisher.run())
    yield log, publisher, published
    running.cancel()
    await asyncio.wait([running])


def records(*values, topic="t"):
    return [NewRecord(topic, b"k", value, []) for value in values]


async def begun(log, count):
    await eventually(lambda: len(log.begun) == count, lambda: log.begun)


async def test_rows_are_begun_without_waiting_for_earlier_ones_and_gather_behind_a_full_pipeline(world):
    log, publisher, published = world
    for n in range(8):
        publisher.put(n, records(b"%d" % n))
        await begun(log, n + 1)
    for n in (8, 9):
        publisher.put(n, records(b"%d" % n))
    publisher.put(9, records(b"once more"))
    log.ends[3].set_result(None)
    await begun(log, 9)
    assert log.begun[-1] == [b"8", b"9"]
    assert published == [3]
    for end in log.ends:
        end.done() or end.set_result(None)
    await publisher.drained()
    assert sorted(published) == list(range(10))
    assert publisher.backlog == 0


async def test_after_a_failure_what_is_not_acknowledged_is_repeated_in_its_order(world):
    log, publisher, published = world
    for n in range(4):
        publisher.put(n, records(b"%d" % n))
        await begun(log, n + 1)
    log.ends[2].set_result(None)
    log.ends[1].set_exception(LogUnavailableError("cut"))
    await begun(log, 5)
    assert log.begun[4] == [b"0", b"1", b"3"]
    assert log.producers == 2
    log.ends[4].set_result(None)
    await publisher.drained()
    assert published == [2, 0, 1, 3]


async def test_a_batch_that_was_too_large_is_repeated_record_by_record(world):
    log, publisher, published = world
    publisher.put(1, records(b"a", b"b", b"c"))
    await begun(log, 1)
    log.ends[0].set_exception(RecordTooLargeError("the batch"))
    for n, value in enumerate((b"a", b"b"), 1):
        await begun(log, n + 1)
        assert log.begun[n] == [value]
        log.ends[n].set_result(None)
    await begun(log, 4)
    log.ends[3].set_exception(RecordTooLargeError("this one"))
    await begun(log, 5)
    assert log.begun[3:] == [[b"c"], [b"c"]], "what is in the log is not repeated"
    assert publisher.backlog == 1
    log.ends[4].set_result(None)
    await publisher.drained()
    assert published == [1]


async def test_a_record_of_the_retry_topic_waits_for_all_before_it(world):
    log, publisher, published = world
    publisher.put(1, records(b"1"))
    await begun(log, 1)
    publisher.put(2, [*records(b"retry", topic="retry.s"), *records(b"2")])
    publisher.put(3, records(b"3"))
    await asyncio.sleep(0)
    assert len(log.begun) == 1
    log.ends[0].set_result(None)
    await begun(log, 3)
    assert sorted(log.begun[1:]) == [[b"2"], [b"3"]]
    log.ends[log.begun.index([b"2"])].set_result(None)
    await begun(log, 4)
    assert log.begun[3] == [b"retry"]
    for end in log.ends:
        end.done() or end.set_result(None)
    await publisher.drained()
    assert sorted(published) == [1, 2, 3]


async def test_a_batch_that_is_too_large_is_taken_apart_though_what_broke_with_it_failed_first(world):
    log, publisher, _ = world
    publisher.put(1, records(b"a", b"b"))
    await begun(log, 1)
    publisher.put(2, records(b"c", b"d"))
    await begun(log, 2)
    log.ends[0].set_exception(LogUnavailableError("thrown away, for the other has failed"))
    log.ends[1].set_exception(RecordTooLargeError("their batch"))
    for count in (3, 4):
        await begun(log, count)
        log.ends[-1].set_result(None)
    assert log.begun[2:4] == [[b"a"], [b"b"]]
