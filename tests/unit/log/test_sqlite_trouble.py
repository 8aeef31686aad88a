"""What a SQLite log says when its disk is full, its file damaged, locked or somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from choreo.errors import ConfigurationError, LogError, LogUnavailableError, UnknownTopicError
from choreo.log import file, sqlite
from choreo.log.port import NewRecord, Topic, TopicPartition
from choreo.log.sqlite import SqliteLog
from choreo.log.tables import Tables

PLACE = TopicPartition("t", 0)


def record(number: int) -> NewRecord:
    return NewRecord("t", b"k", b"%08d" % number + b"x" * 20_000, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 4 MB of room."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def fill(log: SqliteLog) -> int:
    """Append until the log refuses because it is full; returns how many records it took."""
    producer = log.producer()
    taken = 0
    with pytest.raises(LogUnavailableError, match=r"disk is full.*free some room"):  # noqa: PT012 - nobody knows which one
        while taken < 1_000:
            await producer.append([record(taken)])
            taken += 1
    return taken


async def check(log: SqliteLog, numbers: list[int]) -> None:
    reader = log.consumer(["t"])
    found: list[int] = []
    while len(found) < len(numbers):
        found += [int((r.value or b"")[:8]) for r in await reader.poll(timeout=10)]
    assert found == numbers


async def test_a_full_disk_loses_nothing_and_appends_work_again_with_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 2_000_000)
    async with SqliteLog(small_disk / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        taken = await fill(log)
        with pytest.raises(LogUnavailableError, match=r"log\.db"):
            await log.producer().append([record(0)] * 40)
        assert (await log.end_offsets([PLACE]))[PLACE] == taken > 10
        ballast.unlink()
        await log.producer().append([record(taken)])
        await check(log, list(range(taken + 1)))
    async with SqliteLog(small_disk / "log.db") as log:
        await check(log, list(range(taken + 1)))
    with contextlib.closing(sqlite3.connect(small_disk / "log.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_full_file_is_reported_the_same_way(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        await log._writer.run(lambda tables: tables.connection.execute("PRAGMA max_page_count = 100").fetchone())
        taken = await fill(log)
        await log._writer.run(lambda tables: tables.connection.execute("PRAGMA max_page_count = 10000").fetchone())
        await log.producer().append([record(taken)])
        await check(log, list(range(taken + 1)))


async def test_a_read_only_disk(small_disk: Path) -> None:
    async with SqliteLog(small_disk / "log.db"):
        pass
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigurationError, match=r"log\.db.*may write to"):
        async with SqliteLog(small_disk / "log.db"):
            pass
    with pytest.raises(ConfigurationError, match=r"new/log\.db"):
        async with SqliteLog(small_disk / "new" / "log.db"):
            pass


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/log\.db.*name a file in a folder"):
        async with SqliteLog(tmp_path / "file" / "log.db"):
            pass


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"once upon a time " * 1_000)
    with pytest.raises(ConfigurationError, match=r"log\.db.*no SQLite file.*move this one away"):
        async with SqliteLog(tmp_path / "log.db"):
            pass


async def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("CREATE TABLE mine (a)")
        before = connection.execute("PRAGMA journal_mode").fetchone()
    with pytest.raises(ConfigurationError, match="no log of choreo"):
        async with SqliteLog(tmp_path / "log.db"):
            pass
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == before


@pytest.mark.parametrize(("version", "age"), [(99, "a newer choreo"), (1, "an older choreo")])
async def test_a_log_of_another_choreo(tmp_path: Path, version: int, age: str) -> None:
    async with SqliteLog(tmp_path / "log.db"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ConfigurationError, match=age):
        async with SqliteLog(tmp_path / "log.db"):
            pass


async def test_damage_is_named(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        for number in range(100):
            await log.producer().append([record(number)])
    size = (tmp_path / "log.db").stat().st_size
    with (tmp_path / "log.db").open("r+b") as file:
        file.seek(16 * 8192)
        file.write(b"\xa5" * (size - 16 * 8192))
    async with SqliteLog(tmp_path / "log.db") as log:
        reader = log.consumer(["t"])
        with pytest.raises(LogError, match=r"log\.db.*damaged"):  # noqa: PT012 - it may read some of it first
            while await reader.poll(timeout=10):
                pass


async def test_a_lock_that_is_never_released_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_BUSY_TIMEOUT", 0.1)
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        with contextlib.closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogUnavailableError, match=r"log\.db.*another process"):
                await log.producer().append([record(0)])
            other.execute("ROLLBACK")
        await log.producer().append([record(0)])
        await check(log, [0])


async def test_a_lock_is_waited_for_once_however_many_want_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = sqlite3.OperationalError("locked")
    busy.sqlite_errorname = "SQLITE_BUSY"
    refused: list[object] = []

    def refuse(action: partial[object]) -> object:
        if action.args == ("BEGIN",):
            return action()
        refused.append(action)
        raise busy

    entered, gate = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        gate.wait(10)

    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        holding = asyncio.create_task(log.write(hold))
        await asyncio.to_thread(entered.wait)
        appends = [asyncio.create_task(log.producer().append([record(n)])) for n in range(20)]
        while log._writer._jobs.qsize() < len(appends):  # noqa: ASYNC110 - a queue of threads has no event
            await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "patiently", refuse)
            gate.set()
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
        await holding
        assert [type(outcome) for outcome in outcomes] == [LogUnavailableError] * len(appends)
        assert len(refused) < 5, "each of them has waited for itself"
        await log.producer().append([record(0)])
        await check(log, [0])


async def test_what_was_undone_is_forgotten(tmp_path: Path) -> None:
    def make_and_fail(tables: Tables) -> None:
        tables.create_topics([Topic(name="t", partitions=1)])
        tables.write([record(0)], None, None)
        raise ZeroDivisionError

    async with SqliteLog(tmp_path / "log.db") as log:
        with pytest.raises(ZeroDivisionError):
            await log.write(make_and_fail)
        with pytest.raises(UnknownTopicError):
            await log.producer().append([record(0)])
        await log.create_topics([Topic(name="other", partitions=1), Topic(name="t", partitions=1)])
        await log.producer().append([record(1)])
        await check(log, [1])


@pytest.mark.parametrize(
    "url",
    ["sqlite:///", "sqlite://log.db", "sqlite:///:memory:", "sqlite:///log.db?sync=off", "sqlite:///l?synchronous=off"],
)
def test_an_address_that_cannot_work(url: str) -> None:
    with pytest.raises(ConfigurationError, match="CHOREO_LOG"):
        SqliteLog.at(url)


def test_an_address_is_shown_as_it_was_given(tmp_path: Path) -> None:
    assert SqliteLog.at("sqlite:///some/log.db?synchronous=normal").url == "sqlite:///some/log.db?synchronous=normal"
    assert SqliteLog(tmp_path / "log.db").url == f"sqlite:///{tmp_path}/log.db"


async def test_a_log_that_is_not_open_says_so(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    with pytest.raises(LogError, match="not open"):
        await log.topics()
    async with log:
        producer = log.producer()
    with pytest.raises(LogError, match="not open"):
        await producer.append([record(0)])


async def test_a_wrong_value_hurts_nobody_else(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log.db") as log:
        await log.create_topics([Topic(name="t", partitions=1)])
        producer = log.producer()
        impossible = record(99)._replace(timestamp=1 << 70)
        calls = [producer.append([record(0)]), producer.append([record(98), impossible]), producer.append([record(1)])]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), OverflowError, type(None)]
        await check(log, [0, 1])
