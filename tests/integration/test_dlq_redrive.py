"""Redriving on the logs themselves: all or nothing, once, in order, as carefully as one asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from choreo.choreography import topic_settings
from choreo.dlq import DeadLetters, Pace, Reason, Report, Selection, dead_letters
from choreo.errors import NotOwnerError
from choreo.log import Log, NewRecord, Record, Topic, TopicPartition, open_log
from choreo.log.memory import MemoryLog
from choreo.runtime.deadletter import Failed, dead_letter
from choreo.runtime.parking import returned
from tests.support import eventually

FIXED = Reason(kind="redriven", by="ada", why="fixed")
EVERYTHING = Selection(handler="charge")


@dataclass
class Shop:
    """A log with the topics of one service, whose dead letters are made here."""

    log: Log
    service: str

    async def append(self, *records: NewRecord) -> None:
        producer = self.log.producer()
        await producer.append(records)
        await producer.close()

    def failing(self, key: str, offset: int, redrives: int = 0, *, parked: bool = True) -> NewRecord:
        """The dead letter of the record at orders/0@offset."""
        record = Record("orders", 0, offset, 1_700_000_000_000 + offset, key.encode(), b"v", [])
        failed = Failed(
            service=self.service, handler="charge", stage="handle", kind="fatal", error=ValueError("no"), attempts=1,
            first_failed_ms=1_700_000_000_000, now_ms=1_700_000_000_000, subject=str(offset), redrives=redrives,
            parked=parked,
        )  # fmt: skip
        return dead_letter(record, failed, 10_000)

    async def lying(self, topic: str) -> list[Record]:
        """All records of a topic, by partition and offset."""
        places = [TopicPartition(topic, number) for number in range((await self.log.topics())[topic].partitions)]
        reader, found = self.log.consumer([topic]), list[Record]()
        ends = await self.log.end_offsets(places)
        while sum(ends.values()) and (more := await reader.poll(timeout=1)):
            found += more
        await reader.close()
        return sorted(found)

    async def given_back(self) -> list[int]:
        """The original offsets of what lies in the retry topic, partition by partition."""
        return [returned(record).record.offset for record in await self.lying(f"retry.{self.service}")]

    @asynccontextmanager
    async def at_work(self, failing: frozenset[int] = frozenset()) -> AsyncIterator[None]:
        """What the service does with its retry topic: those at these original offsets fail again."""
        consumer = self.log.consumer([f"retry.{self.service}"], group=self.service)

        async def work() -> None:
            while True:
                for record in await consumer.poll():
                    told = returned(record)
                    if told.record.offset in failing:
                        key = (record.key or b"").decode()
                        await self.append(self.failing(key, told.record.offset, told.redrives))
                    await consumer.commit({TopicPartition(record.topic, record.partition): record.offset + 1})

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await consumer.close()

    def opened(self):
        return dead_letters(self.log, service=self.service, values_of=Selection())


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
async def shop(request, tmp_path) -> AsyncIterator[Shop]:
    """Eight dead letters: two keys, each four times."""
    made = {"memory": MemoryLog, "sqlite": lambda: open_log(f"sqlite:///{tmp_path}/log.db")}
    made["kafka"] = lambda: open_log(f"kafka://{request.getfixturevalue('kafka_bootstrap')}")
    async with made[request.param]() as log:
        shop = Shop(log, f"payments-{uuid4().hex[:8]}")
        names = [f"dlq.{shop.service}", f"retry.{shop.service}"]
        await log.create_topics(
            [Topic(name=name, partitions=2, replication=1, settings=topic_settings(name)) for name in names]
        )
        await shop.append(*(shop.failing("ab"[offset % 2], offset) for offset in range(8)))
        yield shop


async def all_of(letters: DeadLetters, chosen: Selection, pace: Pace | None = None, reason: Reason = FIXED) -> Report:
    return [report async for report in letters.resolve(chosen, reason, pace)][-1]


async def only_open(letters: DeadLetters, *offsets: int) -> None:
    """Wait until just these are open: a transaction that Kafka has acknowledged is not seen at the same moment."""

    async def so() -> bool:
        await letters.refresh()
        return [letter.place.offset for letter in letters.select(Selection(state="open"))] == [*offsets]

    await eventually(so, f"only {offsets} are open")


async def test_each_goes_back_once_and_a_key_keeps_its_order(shop):
    async with shop.opened() as letters:
        await only_open(letters, 0, 1, 2, 3, 4, 5, 6, 7)
        assert (await all_of(letters, EVERYTHING)).resolved == 8
        await only_open(letters)
    back = await shop.given_back()
    assert [offset for offset in back if offset % 2] == [1, 3, 5, 7]
    assert [offset for offset in back if not offset % 2] == [0, 2, 4, 6]
    async with shop.opened() as letters:
        report = await all_of(letters, EVERYTHING)
    assert (report.resolved, report.passed_over) == (0, 8)
    assert len(await shop.given_back()) == 8


async def test_interrupted_anywhere_it_goes_on_where_it_was(shop):
    for _ in range(3):
        async with shop.opened() as letters, aclosing(letters.resolve(EVERYTHING, FIXED, Pace(rate=2.9))) as reports:
            assert (await anext(reports)).resolved == 2
    async with shop.opened() as letters:
        report = await all_of(letters, EVERYTHING)
    assert (report.resolved, report.passed_over, report.left) == (2, 6, 0)
    assert sorted(await shop.given_back()) == [0, 1, 2, 3, 4, 5, 6, 7]


async def test_of_two_at_once_the_later_one_goes_on_and_nothing_goes_twice(shop):
    async with (
        shop.opened() as early,
        shop.opened() as late,
        aclosing(early.resolve(EVERYTHING, FIXED, Pace(rate=3))) as reports,
    ):
        await anext(reports)
        report = await all_of(late, EVERYTHING)
        assert (report.resolved, report.passed_over) == (5, 3)
        with pytest.raises(NotOwnerError):
            await anext(reports)
    assert sorted(await shop.given_back()) == [0, 1, 2, 3, 4, 5, 6, 7]


async def test_one_that_is_too_large_stays_open_and_does_not_keep_the_others_back(shop):
    service = f"small-{uuid4().hex[:8]}"
    kept = topic_settings(f"dlq.{service}")  # their records have the times of old originals
    small = kept | {"max.message.bytes": "1000"}
    await shop.log.create_topics([Topic(name=f"dlq.{service}", partitions=1, replication=1, settings=kept)])
    await shop.log.create_topics([Topic(name=f"retry.{service}", partitions=1, replication=1, settings=small)])
    other = Shop(shop.log, service)
    await other.append(other.failing("a", 1), other.failing("b" * 1_000, 2), other.failing("a", 3))
    async with other.opened() as letters:
        report = await all_of(letters, EVERYTHING)
        assert (report.resolved, [*report.refused]) == (
            2,
            [letter.id for letter in letters.select(Selection(key="b" * 1_000))],
        )
        await only_open(letters, 2)
    assert await other.given_back() == [1, 3]


async def test_what_was_read_without_its_value_is_not_sent_without_it(shop):
    async with dead_letters(shop.log, service=shop.service) as letters:
        report = await all_of(letters, EVERYTHING)
        assert (report.resolved, len(report.refused)) == (0, 8)
        await only_open(letters, 0, 1, 2, 3, 4, 5, 6, 7)
    assert await shop.given_back() == []


async def test_a_canary_is_of_those_that_could_go(shop):
    """The first has no value, and the original is gone."""
    record = Record("orders", 1, 0, 1_700_000_000_000, b"c", b"v" * 5_000, [])
    failed = Failed(
        service=shop.service, handler="charge", stage="handle", kind="fatal", error=ValueError("no"), attempts=1,
        first_failed_ms=1, now_ms=1_700_000_000_000, subject="large", parked=True,
    )  # fmt: skip
    await shop.append(dead_letter(record, failed, 1_000))
    async with shop.at_work(frozenset({0})), shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(canary=1))
        assert (report.resolved, len(report.refused), report.left) == (1, 1, 7)
        assert report.stopped == "1 of 1 failed again"
        discarded = await all_of(letters, Selection(key="c"), None, Reason(kind="discarded", by="a", why="w"))
        assert (discarded.resolved, discarded.refused) == (1, {}), "a key is released without the value"


async def test_what_came_back_is_discarded_at_its_service_too(shop):
    """A record that came back as unreadable (its handler was away) does not say that its key waits since before."""
    await shop.append(shop.failing("c", 20, redrives=1, parked=False), shop.failing("c", 21, parked=False))
    async with shop.opened() as letters:
        await all_of(letters, Selection(key="c"), None, Reason(kind="discarded", by="a", why="w"))
    assert await shop.given_back() == [20]


async def test_after_a_good_canary_the_others_follow(shop):
    async with shop.at_work(), shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(canary=3))
    assert (report.resolved, report.failed_again, report.left, report.stopped) == (8, 0, 0, "")


async def test_a_canary_that_fails_again_stops_the_rest(shop):
    async with shop.at_work(frozenset({1})), shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(canary=2))
        assert (report.resolved, report.failed_again, report.left) == (2, 1, 6)
        assert report.stopped == "1 of 2 failed again"
        await letters.refresh()
        (again,) = [letter for letter in letters.select(Selection(state="open")) if letter.redrives]
        assert (again.place.offset, again.redrives) == (1, 1)
        (first,) = [one for one in letters.select(Selection()) if one.place.offset == 1 and not one.redrives]
        assert letters.fold.failed_again(first)
    assert sorted(await shop.given_back()) == [0, 1]


async def test_an_outcome_that_does_not_come_stops_it_too(shop):
    async with shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(canary=1, wait=0.2))
    assert (report.resolved, report.left) == (1, 7)
    assert report.stopped == f"the outcome is unknown after 0.2 s: does service {shop.service} run?"


async def test_too_many_failures_stop_it(shop):
    async with shop.at_work(frozenset(range(3, 8))), shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(max_failures=0.3, rate=2))
    assert (report.resolved, report.failed_again, report.left) == (6, 3, 2)
    assert report.stopped == "3 of 6 failed again"


async def test_discarding_resolves_and_releases_but_waits_for_nothing(shop):
    async with shop.opened() as letters:
        report = await all_of(letters, EVERYTHING, Pace(canary=1, wait=0), Reason(kind="discarded", by="a", why="w"))
        assert report.resolved == 8
        await only_open(letters)
    assert all(returned(record).discard for record in await shop.lying(f"retry.{shop.service}"))


async def test_the_example_of_the_page_runs():
    page = (Path(__file__).parents[2] / "docs/dead-letters.md").read_text("utf-8")
    scope: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], scope)  # noqa: S102 - our own page
    async with MemoryLog() as log:
        shop = Shop(log, "payments")
        await log.create_topics([Topic(name="dlq.payments"), Topic(name="retry.payments")])
        await shop.append(shop.failing("a", 1), shop.failing("b", 2), shop.failing("a", 3))
        async with shop.at_work():
            assert await scope["redrive_timeouts"](log) == 3
        assert sorted(await shop.given_back()) == [1, 2, 3]
