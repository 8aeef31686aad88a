"""Several processes at one SQLite log: they append, share a group, are killed, frozen and blocked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from choreo.log.port import Consumer, NewRecord, Position, Record, Topic, TopicPartition
from choreo.log.sqlite import SqliteLog

PATIENCE = 30.0


class Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def begin(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(command.encode() + b"\n")

    async def answer(self) -> str:
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, f"the process has ended: {self._process.returncode}"
        return line.decode().rstrip("\n")

    async def ask(self, command: str) -> str:
        self.begin(command)
        return await self.answer()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def end(self) -> int:
        self.begin("")
        return await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def processes(url: str, count: int = 1) -> AsyncIterator[list[Process]]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.unit.log.sqlite_child", url)
    children = [Process(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)) for _ in range(count)]
    try:
        assert [await child.answer() for child in children] == ["open"] * count
        yield children
    finally:
        for child in children:
            await child.kill()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/er/log.db"


async def make_topic(log: SqliteLog, partitions: int = 4) -> None:
    await log.create_topics([Topic(name="t", partitions=partitions)])


async def everything(log: SqliteLog) -> list[Record]:
    ends = await log.end_offsets([TopicPartition("t", n) for n in range((await log.topics())["t"].partitions)])
    reader = log.consumer(["t"])
    found: list[Record] = []
    while len(found) < sum(ends.values()):
        found += await reader.poll(timeout=PATIENCE)
    return found


async def owns(consumer: Consumer, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(consumer.assignment) != count:  # noqa: ASYNC110 - the assignment has no event
            await asyncio.sleep(0.01)


def values(records: Iterable[Record]) -> list[int]:
    return [int(r.value or b"") for r in records]


async def test_several_may_make_the_file_at_once(url: str) -> None:
    async with processes(url, 5) as children:
        assert [await child.end() for child in children] == [0] * 5


async def test_appends_of_several_do_not_get_lost_or_mixed_up(url: str) -> None:
    async with SqliteLog.at(url) as log, processes(url, 3) as children:
        await make_topic(log)
        for number, child in enumerate(children):
            child.begin(f"append t 150 key-{number}")
        for child in children:
            while await child.answer() != "appended":
                pass
        found = await everything(log)
        for number in range(3):
            assert values(r for r in found if r.key == b"key-%d" % number) == list(range(150))
        for n in range(4):
            offsets = [r.offset for r in found if r.partition == n]
            assert offsets == list(range(len(offsets)))


async def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    async with SqliteLog.at(url) as log:
        await make_topic(log)
    async with processes(url) as (child,):
        child.begin("append t 100000 key")
        acknowledged = 0
        while acknowledged < 100:
            acknowledged = int((await child.answer()).split()[1])
        child.signal(signal.SIGKILL)
    async with SqliteLog.at(url) as log:
        found = values(await everything(log))
        assert found == list(range(len(found)))
        assert len(found) > acknowledged
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_an_append_elsewhere_wakes_a_waiting_poll(url: str) -> None:
    async with SqliteLog.at(url) as log, processes(url) as (child,):
        await make_topic(log)
        await child.ask("join t g")
        producer = log.producer()
        for n in range(20):
            child.begin("poll")
            await producer.append([NewRecord("t", None, b"%d" % n, [])])
            assert await child.answer() == str(n)


async def test_a_frozen_member_is_replaced_and_fenced(url: str) -> None:
    async with SqliteLog.at(url) as log, processes(url) as (child,):
        await make_topic(log)
        await child.ask("join t g")
        survivor = log.consumer(["t"], group="g")
        await owns(survivor, 2)
        (theirs, _) = sorted({TopicPartition("t", n) for n in range(4)} - survivor.assignment)
        assert await child.ask(f"commit {theirs.partition} 0") == "committed, lost 0"
        child.signal(signal.SIGSTOP)
        await owns(survivor, 4)
        await survivor.commit({theirs: 7})
        child.begin(f"commit {theirs.partition} 1")
        child.signal(signal.SIGCONT)
        assert await child.answer() == "NotOwnerError"
        assert await log.committed("g", [theirs]) == {theirs: Position(7)}
        await owns(survivor, 2)


async def test_a_blocked_event_loop_keeps_its_membership(url: str) -> None:
    async with SqliteLog.at(url) as log, processes(url) as (child,):
        await make_topic(log)
        await child.ask("join t g")
        other = log.consumer(["t"], group="g")
        await owns(other, 2)
        (theirs, _) = sorted({TopicPartition("t", n) for n in range(4)} - other.assignment)
        assert await child.ask("block 4.5") == "unblocked"  # longer than the session timeout
        assert len(other.assignment) == 2
        assert await child.ask(f"commit {theirs.partition} 1") == "committed, lost 0"
