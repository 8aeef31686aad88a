"""A PostgreSQL that goes away, is silent, or holds the locks of an instance that stands still."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from uuid import uuid4

import pytest

from choreo.errors import FencedError, StoreUnavailableError
from choreo.store import Effects, Store
from choreo.store.postgres import connection, writing
from choreo.store.postgres.store import PostgresStore
from tests.conformance.store.world import P0, P1, World, emitted, key, own, progress
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


@pytest.fixture
def server(own_postgres: PostgresServer) -> PostgresServer:
    own_postgres.ensure_running()
    return own_postgres


@pytest.fixture
async def world(server: PostgresServer) -> AsyncIterator[World]:
    world = World(f"{server.url}?schema=test_{uuid4().hex}", "%s")
    yield world
    server.ensure_running()
    await world.close()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


async def eventually(work: Callable[[], Awaitable[None]]) -> None:
    """Repeat what waits for the store, as the runtime does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await work()
            except StoreUnavailableError:
                await asyncio.sleep(0.1)


async def end_sessions(store: PostgresStore, by: Store) -> None:
    """What a firewall, a failover or an administrator does to connections."""
    await by.begin()
    await by.db.fetch_all(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
        (f"choreo {store._instance}",),
    )
    await by.rollback()


def member(world: World) -> subprocess.Popen[str]:
    """An instance in a process of its own."""
    arguments = [sys.executable, "-m", "tests.integration.postgres_member", world.url]
    return subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- it goes away and comes back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_store_outlives_its_servers_restart(world, server, end):
    store = await world.open()
    epoch = await own(store, P0)
    await store.commit(Effects({P0: progress(epoch, 1)}, [key(1)], emitted(b"1")))
    await store.begin()
    await world.put(store, "lost")
    getattr(server, end)()
    with pytest.raises(StoreUnavailableError, match="is the server up"):
        await store.commit(Effects({P0: progress(epoch, 2)}))
    assert not store.in_transaction
    for call in (store.begin(), store.seen([key(1)]), store.take_over([P0])):
        with pytest.raises(StoreUnavailableError):
            await call
    server.start()
    await eventually(lambda: world.write(store, ["kept"], Effects({P0: progress(epoch, 2)}, [key(2)])))
    assert await store.seen([key(1), key(2)]) == {key(1), key(2)}
    assert await world.notes() == ["kept"]


async def test_a_cut_in_a_handlers_statement_undoes_the_transaction_and_the_next_one_works(world):
    store, other = await world.open(), await world.open()
    await store.begin()
    await store.savepoint()
    await world.put(store, "a")
    await end_sessions(store, by=other)
    with pytest.raises(StoreUnavailableError):
        await world.put(store, "b")
    for call in (store.rollback_to_savepoint(), world.put(store, "c"), store.commit(Effects({}))):
        with pytest.raises(StoreUnavailableError):  # nothing is written outside the transaction
            await call
    assert not store.in_transaction
    await world.write(store, ["d"], Effects({}))
    assert await world.notes() == ["d"]


async def test_a_cut_between_two_transactions_is_mended_by_the_second_attempt(world):
    store, other = await world.open(), await world.open()
    await end_sessions(store, by=other)
    await eventually(lambda: world.write(store, ["a"], Effects({})))
    assert await world.notes() == ["a"]


async def test_a_cut_connection_whose_partitions_are_taken_is_a_fenced_one(world):
    """An instance that was cut off must not take back what a new owner has."""
    store, other = await world.open(), await world.open()
    epoch = await own(store, P0, P1)
    await store.begin()
    await world.put(store, "a")
    await own(other, P0)
    await end_sessions(store, by=other)
    with pytest.raises(FencedError) as fenced:
        await world.put(store, "b")
    assert fenced.value.partitions == (P0,)
    with pytest.raises(FencedError):
        await store.rollback_to_savepoint()
    await store.rollback()
    await world.write(store, ["c"], Effects({P1: progress(epoch)}))
    assert await world.notes() == ["c"]


@pytest.mark.parametrize("applied", [True, False])
async def test_a_commit_that_nobody_heard_of_is_settled_by_taking_over_again(world, monkeypatch, applied):
    store = await world.open()
    epoch = await own(store, P0)
    queued = await store.commit(Effects({P0: progress(epoch, 1)}, outbox=emitted(b"in memory")))
    run = store._writer.run

    async def cut(*statements, stops=False):
        if applied:
            await run(*statements, stops=stops)
        await store._writer.close()
        raise StoreUnavailableError("cut")

    await store.begin()
    await world.put(store, "a")
    with monkeypatch.context() as patched:
        patched.setattr(store._writer, "run", cut)
        with pytest.raises(StoreUnavailableError):
            await store.commit(Effects({P0: progress(epoch, 2)}, [key(2)], emitted(b"unheard")))
    taken = await store.take_over([P0])
    assert taken.progress[P0].watermark == 1 + applied
    assert taken.progress[P0].deaths == 0
    assert [row.records[0].value for row in taken.outbox] == [b"unheard"] * applied
    assert queued not in [row.row_id for row in taken.outbox]
    assert await store.seen([key(2)]) == ({key(2)} if applied else set())
    assert await world.notes() == ["a"] * applied


# --- it is silent -----------------------------------------------------------------------------------------------------


async def test_a_server_that_stands_still_is_not_waited_for_without_end(world, server, monkeypatch):
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    store = await world.open()
    await store.begin()
    await world.put(store, "a")
    server.freeze()
    try:
        async with asyncio.timeout(PATIENCE):
            for call in (world.put(store, "b"), store.seen([key(1)])):
                with pytest.raises(StoreUnavailableError):
                    await call
            await store.rollback()
    finally:
        server.thaw()
    await eventually(lambda: world.write(store, ["c"], Effects({})))
    assert await world.notes() == ["c"]


async def test_a_network_that_lets_nothing_through_is_not_waited_for_without_end(server, proxy, monkeypatch):
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    monkeypatch.setitem(connection._CONNECT, "connect_timeout", 2)
    world = World(f"{server.url.replace(str(server.port), str(proxy.port))}?schema=test_{uuid4().hex}", "%s")
    store = await world.open()
    try:
        await store.begin()
        await world.put(store, "a")
        proxy.black_hole()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreUnavailableError):
                await store.commit(Effects({}))
            with pytest.raises(StoreUnavailableError):
                await store.begin()
        proxy.restore()
        await eventually(lambda: world.write(store, ["b"], Effects({})))
        assert "b" in await world.notes(), "`a` may have come through at last: nobody was told"
    finally:
        proxy.restore()
        await world.close()


async def test_a_cancelled_handler_does_not_wait_for_its_statement(world):
    store = await world.open()
    await store.begin()
    await store.savepoint()
    sleeping = asyncio.ensure_future(store.db.execute("SELECT pg_sleep(600)"))
    other = await world.open()
    await other.begin()
    asks = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event = 'PgSleep'"
    async with asyncio.timeout(PATIENCE):
        while await other.db.fetch_one(asks, (f"choreo {store._instance}",)) != (1,):
            pass
        sleeping.cancel()
        await asyncio.wait({sleeping})
    assert sleeping.cancelled()
    await store.rollback_to_savepoint()
    await world.put(store, "a")
    await store.commit(Effects({}))
    assert await world.notes() == ["a"]


# --- it holds the locks of who stands still ---------------------------------------------------------------------------


async def test_a_frozen_instance_blocks_its_successor_for_seconds_only_and_changes_nothing_when_it_wakes(world):
    await (await world.open()).close()
    frozen = member(world)
    try:
        assert await asyncio.to_thread(frozen.stdout.readline) == "ready\n"
        frozen.send_signal(SIGSTOP)
        store = await world.open()

        async def succeed() -> None:
            epoch = (await store.take_over([P0])).progress[P0].epoch
            await world.write(store, ["note"], Effects({P0: progress(epoch, 5)}))  # the row that the frozen one holds

        await eventually(succeed)
        frozen.send_signal(SIGCONT)
        told, _ = await asyncio.to_thread(frozen.communicate, "go\n", PATIENCE)
        assert told == "FencedError\n"
    finally:
        frozen.kill()
        await asyncio.to_thread(frozen.communicate)
    assert (await store.take_over([P0])).progress[P0].watermark == 5
    assert await world.ask("SELECT * FROM notes") == [("note", "")]


async def test_an_instance_frozen_in_the_middle_of_its_commit_is_ousted(world):
    zombie, store = await world.open(), await world.open()
    epoch = await own(zombie, P0)
    await zombie.begin()
    effects = Effects({P0: progress(epoch, 9)}, [key(1)], emitted(b"never"))
    await zombie._transaction.run(writing.unit(effects))  # all but the COMMIT
    taken = None

    async def succeed() -> None:
        nonlocal taken
        taken = await store.take_over([P0])

    await eventually(succeed)
    assert (taken.progress[P0].watermark, taken.outbox) == (-1, [])
    assert await store.seen([key(1)]) == set()
    with pytest.raises(FencedError):
        await zombie.commit(effects)


async def test_a_lock_that_is_held_for_long_is_the_stores_trouble(world, monkeypatch):
    monkeypatch.setattr(connection, "_SETTINGS", connection._SETTINGS.replace("'8s'", "'100ms'"))
    store, other = await world.open(), await world.open()
    await world.write(other, ["a"], Effects({}))
    await other.begin()
    await other.db.execute("UPDATE notes SET text = 'held'")
    await store.begin()
    await store.savepoint()
    with pytest.raises(StoreUnavailableError, match="holds a lock for too long"):
        await store.db.execute("UPDATE notes SET text = 'wanted'")
    await store.rollback()
    await other.commit(Effects({}))
    assert await world.ask("SELECT text FROM notes") == [("held",)]
