"""Old records of a SQLite log go, in bites, while it is in use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from choreo.log.file import connect
from choreo.log.port import NewRecord, Topic, TopicPartition
from choreo.log.sqlite import SqliteLog
from choreo.log.tables import Tables

PLACE = TopicPartition("t", 0)
OLD = 5_000


def now() -> int:
    return time.time_ns() // 1_000_000


async def test_old_records_go_in_bites_while_others_append(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1, settings={"retention.ms": "3600000"})])
        producer = log.producer()
        old = [NewRecord("t", None, b"old", [], now() - 7_200_000)] * OLD
        await producer.append(old)
        firsts = {0}
        fresh = 0
        while max(firsts) < OLD:
            await producer.append([NewRecord("t", None, b"%d" % fresh, [])])
            fresh += 1
            firsts.add((await log.beginning_offsets([PLACE]))[PLACE])
            await asyncio.sleep(0)
        assert len(firsts) > 2, "everything went at once"
        assert await log.end_offsets([PLACE]) == {PLACE: OLD + fresh}
        reader = log.consumer(["t"])
        found = []
        while len(found) < fresh:
            found += await reader.poll(timeout=10)
        assert [(r.offset, r.value) for r in found] == [(OLD + n, b"%d" % n) for n in range(fresh)]
        rows = await log._reader.run(
            lambda tables: tables.connection.execute("SELECT count(*) FROM records").fetchone()
        )
        assert rows == (fresh,)


async def test_who_was_behind_goes_on_at_the_first_record_kept(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1, settings={"retention.ms": "3600000"})])
        place_old = [NewRecord("t", None, b"old", [], now() - 7_200_000)] * 3
        await log.producer().append([*place_old, NewRecord("t", None, b"kept", [])])
        for start in ("earliest", "latest"):
            consumer = log.consumer(["t"], group="g", start=start)
            while not consumer.assignment:  # noqa: ASYNC110 - the assignment has no event
                await asyncio.sleep(0.01)
            await consumer.commit({PLACE: 1})
            await consumer.close()
        while await log.beginning_offsets([PLACE]) != {PLACE: 3}:  # noqa: ASYNC110 - nor has trimming
            await asyncio.sleep(0.01)
        for start in ("earliest", "latest"):
            consumer = log.consumer(["t"], group="g", start=start)
            assert [(r.offset, r.value) for r in await consumer.poll(timeout=10)] == [(3, b"kept")]
            await consumer.close()


async def test_a_bite_of_large_records_is_small(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1, settings={"retention.ms": "0"})])
    tables = Tables(connect(tmp_path / "log.db", "normal"))
    large = [NewRecord("t", None, b"x" * 1_000_000, [], 1)] * 20
    tables.write(large, None, None)
    assert tables.trim()
    assert 1 <= tables.bounds([PLACE])[PLACE][0] <= 9
    while tables.trim():
        pass
    assert tables.bounds([PLACE]) == {PLACE: (20, 20)}
    tables.connection.close()
