"""Corners of the embedded logs' consumers that the conformance suite does not reach."""

import asyncio
import sqlite3

import pytest

from choreo.errors import LogUnavailableError
from choreo.log import NewRecord, Topic, TopicPartition, open_log
from choreo.log.groups import SESSION_TIMEOUT
from choreo.log.memory import MemoryLog
from tests.support import eventually

PLACE = TopicPartition("orders", 0)


async def with_records(log, count):
    await log.create_topics([Topic(name="orders", partitions=1)])
    await append(log, count)


async def append(log, count):
    await log.producer().append([NewRecord("orders", b"k", b"%d" % n, []) for n in range(count)])


async def test_a_reader_of_the_latest_beyond_the_end_gets_what_is_appended_from_there_on():
    async with MemoryLog() as log:
        await with_records(log, 3)
        consumer = log.consumer(["orders"], start="latest")
        await eventually(lambda: consumer.assignment)
        await consumer.seek(PLACE, 10)
        assert await consumer.poll(10, 0) == []
        await append(log, 4)
        assert [record.offset for record in await consumer.poll(10, 1)] == [3, 4, 5, 6]


class Refusing:
    async def assigned(self, partitions):
        raise LogUnavailableError("the listener's own trouble")

    async def revoked(self, partitions): ...

    async def lost(self, partitions): ...


async def test_a_listener_that_raises_trouble_of_a_log_ends_its_consumer_all_the_same():
    async with MemoryLog() as log:
        await with_records(log, 1)
        consumer = log.consumer(["orders"], group="g", listener=Refusing())
        with pytest.raises(LogUnavailableError, match="own trouble"):
            await consumer.poll(1, 10)


class Watching:
    def __init__(self):
        self.calls = []

    async def assigned(self, partitions):
        self.calls.append("assigned")
        return {}

    async def revoked(self, partitions):
        self.calls.append("revoked")

    async def lost(self, partitions):
        self.calls.append("lost")


async def test_a_write_lock_held_for_longer_than_a_session_expels_nobody(tmp_path):
    path = tmp_path / "log.db"
    url = f"sqlite:///{path}"
    one, other = Watching(), Watching()
    async with open_log(url) as first, open_log(url) as second:
        await first.create_topics([Topic(name="orders", partitions=4)])
        ones = first.consumer(["orders"], group="g", listener=one)
        others = second.consumer(["orders"], group="g", listener=other)
        await eventually(lambda: len(ones.assignment) == len(others.assignment) == 2)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(SESSION_TIMEOUT / 1000 * 1.5)  # the fault itself: the lock is held so long
        holder.execute("ROLLBACK")
        holder.close()
        await ones.commit(dict.fromkeys(ones.assignment, 0))
        await others.commit(dict.fromkeys(others.assignment, 0))
        assert "lost" not in one.calls + other.calls
