"""What is PostgreSQL's own about notes and timers: deadlocks, and what its planner makes of tables that it takes for small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest

from choreo.errors import DeadlockError, OvertakenError
from choreo.log.port import Record
from choreo.store import Effects, NewNote, Note, Store, Timer
from tests.conformance.store.world import P0, World, emitted, key, own, progress
from tests.support import eventually

INSERT = "INSERT INTO choreo_notes (key, number, kind, content, keep) VALUES (%s, 0, 'done', '', 0)"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """An administrator's connection."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def world(postgres_url: str, database: psycopg.AsyncConnection) -> AsyncIterator[World]:
    schema = f"test_{uuid4().hex}"
    world = World(f"{postgres_url}?schema={schema}", "%s")
    yield world
    await world.close()
    await database.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def new(at: bytes, number: int = 0, *, alone: bool = False) -> NewNote:
    return NewNote(at, Note(number, "done", b"content"), 0, alone)


async def sessions(database: psycopg.AsyncConnection, store: Store, state: str = "true") -> int:
    """How many sessions of this store are in a state."""
    cursor = await database.execute(
        f"SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND {state}", (f"choreo {store._instance}",)
    )
    ((count,),) = await cursor.fetchall()
    return count


async def test_who_writes_the_same_note_waits_inside_its_commit_for_what_the_other_decides(world, database):
    first, second = await world.open(), await world.open()
    for number, outcome in enumerate([None, OvertakenError]):
        await first.begin()
        await first.db.execute(INSERT, (key(number),))  # as far as its commit has come
        late = asyncio.ensure_future(second.commit(Effects({}, notes=[new(key(number))])))
        await eventually(lambda: sessions(database, second, "wait_event_type = 'Lock'"))
        await (first.rollback() if outcome is None else first.commit(Effects({})))
        if outcome is None:
            await late
        else:
            with pytest.raises(outcome, match=f"note 0 of {key(number).hex()}"):
                await late
        assert not second.in_transaction


async def test_two_commits_that_wait_for_each_other_end_and_one_of_them_has_decided(world, database):
    """A deadlock: the server ends one of them, and it may start over."""
    stores = [await world.open(), await world.open()]
    for store, mine in zip(stores, [key(1), key(2)], strict=True):
        await store.begin()
        await store.db.execute(INSERT, (mine,))
    commits = [
        asyncio.ensure_future(store.commit(Effects({}, notes=[new(theirs)], outbox=emitted(b"out"))))
        for store, theirs in zip(stores, [key(2), key(1)], strict=True)
    ]
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [DeadlockError]
    assert not any(store.in_transaction for store in stores)
    found = await stores[0].notes([key(1), key(2)])
    assert {at: [note.number for note in notes] for at, notes in found.items()} == {key(1): [0], key(2): [0]}
    loser = stores[[type(outcome) for outcome in outcomes].index(DeadlockError)]
    with pytest.raises(OvertakenError):
        await loser.commit(Effects({}, notes=[new(key(1))]))
    await loser.commit(Effects({}, notes=[new(key(1), 1)]))


async def test_no_table_is_read_as_a_whole_however_small_the_server_takes_it_for(world, database):
    """Nothing has counted the rows since the tables were made, and prepared statements keep their plans."""
    schema = world.url.rpartition("=")[2]

    async def scans(closed: Store) -> dict[str, tuple[int, int]]:
        async def is_gone() -> bool:
            return not await sessions(database, closed)

        await eventually(is_gone)  # the server counts at the end of a session
        cursor = await database.execute(
            "SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables"
            " WHERE schemaname = %s AND relname IN ('choreo_notes', 'choreo_timers')",
            (schema,),
        )
        return {name: (whole, by_index) for name, whole, by_index in await cursor.fetchall()}

    maker = await world.open()
    await maker.close()
    before = await scans(maker)
    store = await world.open()
    epoch = await own(store, P0)
    record = Record("orders", 0, 1, 2, b"k", b"v", [])
    for turn in range(8):  # the server plans the first five anew
        keys = [key(1000 * turn + n) for n in range(300)]
        timers = [Timer(at, P0, n, "expire", record) for n, at in enumerate(keys)]
        await store.commit(Effects({P0: progress(epoch)}, notes=[new(at) for at in keys], timers=timers))
        await store.commit(Effects({}, notes=[new(at, 1, alone=True) for at in keys[:9]], forgotten=keys[9:12]))
        await store.commit(Effects({}, unset=keys[:5]))
        assert len(await store.notes(keys)) == 297
        assert len(await store.due([P0], 2**53, 10)) == 10
        assert await store.next_due([P0]) == 5
        await store.expire_notes(1, b"", 20)
    await store.close()
    after = await scans(store)
    assert {name: whole for name, (whole, _) in after.items()} == {name: whole for name, (whole, _) in before.items()}
    assert len(after) == 2
    assert all(by_index > before[name][1] for name, (_, by_index) in after.items())
