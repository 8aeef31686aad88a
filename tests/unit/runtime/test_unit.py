"""The unit of work: who may use the store when, and what a commit leaves behind that did not come to its end."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from choreo.errors import ChoreoError, OvertakenError
from choreo.log.port import TopicPartition
from choreo.runtime import housekeeping
from choreo.runtime.clock import SystemClock
from choreo.runtime.partitions import Partition
from choreo.runtime.remember import Steps
from choreo.runtime.sagas.memory import Memory
from choreo.runtime.session import Session
from choreo.runtime.unit import UnitOfWork
from choreo.store import Park, make_store
from choreo.store.port import Note
from tests.support import eventually

AT = TopicPartition("orders", 0)


@pytest.fixture
async def unit(tmp_path):
    store = make_store(f"sqlite:///{tmp_path}/store.db")
    await store.open("payments", "CREATE TABLE notes (text TEXT)")
    unit = UnitOfWork(store)
    unit.failures = []

    async def flush(**held):
        await unit.commit(unit.failures.append, **held)

    unit.flush = flush
    yield unit
    await store.close()


@pytest.fixture
async def partition(unit):
    return Partition(AT, (await unit.store.take_over([AT])).progress[AT])


async def test_handlers_that_queue_for_the_store_keep_nobody_waiting_for_ever(unit, partition):
    runs = 0

    async def handle():
        nonlocal runs
        while True:
            session = Session(unit, SimpleNamespace(partition=partition), None, asyncio.current_task())
            await session.enter()
            await asyncio.sleep(0)
            await session.keep()
            session.leave()
            runs += 1
            await asyncio.sleep(0)

    handlers = [asyncio.create_task(handle()) for _ in range(3)]
    takes_over = asyncio.create_task(unit.apart(lambda: unit.store.take_over([AT])))
    await eventually(lambda: takes_over.done() or runs > 1_000, lambda: runs)
    assert takes_over.done()
    for task in [*handlers, takes_over]:
        task.cancel()
    await asyncio.wait(handlers)


async def test_a_commit_whose_caller_is_cancelled_is_no_progress(unit, partition, tmp_path):
    """It may have been undone: later commits must not move the watermark past its records."""
    (path,) = tmp_path.glob("*.db")
    partition.tracker.deliver(0)
    unit.finish(partition, 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        committing = asyncio.create_task(unit.flush())
        await asyncio.wait({committing}, timeout=0.1)  # it waits for the other's lock
        assert not committing.done()
        committing.cancel()
        other.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await committing
    assert [type(error) for error in unit.failures] == [asyncio.CancelledError]  # so the instance gives everything up


async def test_keys_that_another_instance_has_released_do_not_pile_up(unit, partition):
    def park(lane):
        unit.park(Park(lane, AT, "head", "pay", b"key"))
        unit.add(partition, 0, ())

    park(b"released".ljust(16))
    park(b"waits".ljust(16))
    await unit.flush()
    assert await unit.store.release(b"released".ljust(16), "head", AT, partition.epoch)
    park(b"not committed".ljust(16))
    await unit.forget_released()
    assert unit.parked == {b"waits".ljust(16), b"not committed".ljust(16)}


async def test_the_inbox_of_a_service_that_is_always_busy_is_cleaned_too(unit, partition, monkeypatch):
    monkeypatch.setattr(housekeeping, "_BETWEEN_ROUNDS", 0.0)
    monkeypatch.setattr(housekeeping, "_BETWEEN_BITES", 0.0)
    monkeypatch.setattr(housekeeping, "_BITE", 10)
    keys = [n.to_bytes(16, "big") for n in range(50)]
    for key in keys:
        unit.add(partition, 0, (), key)
    await unit.flush()
    cleaning = asyncio.create_task(housekeeping.clean_store("s", unit, SystemClock(), -60.0, -60.0, lambda: True))
    count = "SELECT count(*) FROM choreo_inbox"
    await eventually(lambda: unit.store._reader.execute(count).fetchone() == (0,))
    cleaning.cancel()
    await asyncio.wait([cleaning])


async def test_what_outlives_a_failure_adds_nothing(unit, partition):
    """A handler was about to give the connection back when something else failed, and its writes are undone."""
    job = SimpleNamespace(partition=partition)
    session = Session(unit, job, None, asyncio.current_task())
    await session.enter()
    await unit.store.db.execute("INSERT INTO notes VALUES ('undone')")
    await session.keep()
    partition.abandon()
    unit.forget()  # as `Recovery.fail` does
    assert not unit.add(partition, 0, [], b"inbox".ljust(16))
    unit.tick([7])
    session.leave()
    await unit.flush()
    assert await unit.store.seen([b"inbox".ljust(16)]) == set()
    assert unit.store._reader.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert unit.failures == []


async def test_a_note_that_stands_alone_takes_the_place_of_those_that_are_pending(unit, partition):
    memory = Memory(b"key".ljust(16), [])
    for number in range(3):
        unit.add(partition, number, ())
        unit.note(memory, "state", b"%d" % number, 0, alone=True)
    await unit.flush()
    assert await unit.store.notes([memory.key]) == {memory.key: [Note(0, "state", b"2")]}
    assert memory.notes == [Note(0, "state", b"2")]
    assert unit.failures == []


async def test_a_stale_note_is_refused_though_its_number_would_have_been_free_again(unit, partition):
    """Another one has written two states meanwhile, of which the second took the place of the first."""
    key = b"key".ljust(16)
    first, stale = Memory(key, []), Memory(key, [])
    unit.add(partition, 0, ())
    for memory in (first, first):
        unit.note(memory, "state", b"theirs", 0, alone=True)
        await unit.flush()
        unit.add(partition, 1, ())
    unit.note(stale, "state", b"stale", 0, alone=True)
    await unit.flush()
    assert [type(error) for error in unit.failures] == [OvertakenError]
    ((note,),) = (await unit.store.notes([key])).values()
    assert note.content == b"theirs"


async def test_a_step_calls_nothing_outside_while_another_task_of_its_handler_waits_for_the_store(unit, partition):
    """Its result could not be kept: that would wait for the handler, and the handler for it."""
    job, asked = SimpleNamespace(partition=partition), []
    session = Session(unit, job, None, asyncio.current_task())
    async with unit.lock:  # another handler
        entering = asyncio.create_task(session.enter())
        await asyncio.sleep(0)
        with pytest.raises(ChoreoError, match="another task of the handler uses"):
            await Steps(session, job, "decide", "event").take("ask", asked.append, (1,), None)
    await entering
    session.leave()
    assert asked == []
