"""`Bus.transaction`: rows and events of a program that is no service, both or neither."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from choreo import connect, connect_sync
from choreo.errors import (
    ConfigurationError,
    EncodeError,
    LogUnavailableError,
    RecordTooLargeError,
    StoreOwnedError,
)
from choreo.log import open_log
from choreo.runtime import housekeeping, outbox
from tests.integration.runtime_faults import Faults, FaultyLog
from tests.integration.runtime_world import Paid, Placed, World, effects_service
from tests.support import eventually

TABLE = "CREATE TABLE IF NOT EXISTS orders (id TEXT)"


@pytest.fixture
def web(memory_world):
    return f"sqlite:///{memory_world.folder}/web.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(housekeeping, "_BETWEEN_LOOKS", 0.01)


def left(world):
    return world.rows("web", "SELECT count(*) FROM choreo_outbox")[0][0]


async def test_rows_and_events_of_a_block_go_together_and_in_order(memory_world, web):
    async with connect(memory_world.settings(), source="web", log=memory_world.log) as bus:
        for n in range(10):
            async with bus.transaction(web) as tx:
                await tx.db.execute(TABLE)
                await tx.db.execute("INSERT INTO orders VALUES (?)", (f"o{n}",))
                saga = tx.publish(Placed(id="same", n=n))
                assert tx.publish(Paid(id="same", n=n), correlation_id=saga) == saga
        await eventually(lambda: left(memory_world) == 0)
    assert memory_world.rows("web", "SELECT id FROM orders ORDER BY rowid") == [(f"o{n}",) for n in range(10)]
    placed, paid = await memory_world.events("orders"), await memory_world.events("payments")
    assert [data["n"] for _, data in placed] == [data["n"] for _, data in paid] == list(range(10))
    assert [about["correlationid"] for about, _ in paid] == [about["id"] for about, _ in placed]
    assert {about["source"] for about, _ in placed} == {"web"}


async def test_an_exception_in_the_block_or_an_event_that_cannot_be_written_undoes_everything(memory_world, web):

    async def request(bus, wrong):
        async with bus.transaction(web) as tx:
            await tx.db.execute("INSERT INTO orders VALUES ('lost')")
            tx.publish(Placed(id="lost"))
            wrong(tx)

    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        async with bus.transaction(web) as tx:
            await tx.db.execute(TABLE)
        for wrong, error in (
            (lambda tx: 1 / 0, ZeroDivisionError),
            (lambda tx: tx.publish(Placed(id="x" * 10_000_000)), RecordTooLargeError),
            (lambda tx: tx.publish(Placed.model_construct(id=7)), EncodeError),
        ):
            with pytest.raises(error):
                await request(bus, wrong)
        async with bus.transaction(web) as tx:
            tx.publish(Placed(id="kept"))
    assert memory_world.rows("web", "SELECT * FROM orders") == []
    assert [data["id"] for _, data in await memory_world.events("orders")] == ["kept"]


async def test_the_same_event_id_twice_has_one_effect(memory_world, web):
    service = effects_service()
    async with memory_world.running(service), connect(memory_world.settings(), log=memory_world.log) as bus:
        for _ in range(2):
            async with bus.transaction(web) as tx:
                assert tx.publish(Placed(id="o"), event_id="request-7") == "request-7"
        await eventually(lambda: left(memory_world) == 0)
        await memory_world.read_to_the_end(service)
    assert memory_world.rows("payments") == [("o", 0)]


async def test_while_the_log_is_away_commits_succeed_up_to_a_bound_and_the_events_go_out_later(
    memory_world, web, monkeypatch
):
    monkeypatch.setattr(outbox, "_MOST_WAITING", 5)
    monkeypatch.setattr("choreo.runtime.publisher._MAX_DELAY", 0.01)
    faults = Faults()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    async with connect(memory_world.settings(), log=FaultyLog(memory_world.log, faults)) as bus:
        for n in range(5):
            async with bus.transaction(web) as tx:
                tx.publish(Placed(id="o", n=n))
        with pytest.raises(LogUnavailableError, match="5 committed events wait"):
            async with bus.transaction(web) as tx:
                tx.publish(Placed(id="o", n=5))
        faults.none()
        await eventually(lambda: left(memory_world) == 0)
    assert [data["n"] for _, data in await memory_world.events("orders")] == list(range(5))


async def test_what_a_dead_writer_left_goes_out_when_the_next_one_connects(memory_world, web, monkeypatch):
    faults = Faults()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    settings = memory_world.settings(stop_grace=0.01)
    async with connect(settings, log=FaultyLog(memory_world.log, faults)) as bus:
        for n in range(3):
            async with bus.transaction(web) as tx:
                tx.publish(Placed(id="o", n=n))
    assert left(memory_world) == 3
    monkeypatch.setattr(housekeeping, "_ABANDONED_MS", -1)
    async with connect(settings, log=memory_world.log, stores=[web]):
        await eventually(lambda: left(memory_world) == 0)
    assert [data["n"] for _, data in await memory_world.events("orders")] == list(range(3))


async def test_into_the_store_of_a_service_at_work(memory_world):
    service = effects_service()
    async with memory_world.running(service), connect(memory_world.settings(), log=memory_world.log) as bus:
        with pytest.raises(StoreOwnedError, match="belongs to service 'payments'"):
            async with bus.transaction(f"sqlite:///{memory_world.folder}/payments.db?synchronous=normal"):
                pass
        for n in range(20):
            async with bus.transaction(service) as tx:
                await tx.db.execute("INSERT INTO effects VALUES ('by hand', ?)", (n,))
                tx.publish(Placed(id="o", n=n))
        await memory_world.read_to_the_end(service)
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])
    rows = memory_world.rows("payments")
    assert [n for id_, n in rows if id_ == "o"] == [n for id_, n in rows if id_ == "by hand"] == list(range(20))


async def test_a_service_at_work_publishes_what_a_dead_writer_left_in_its_store(memory_world, monkeypatch):
    service, faults = effects_service(), Faults()
    faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
    settings = memory_world.settings(stop_grace=0.01)
    async with connect(settings, log=FaultyLog(memory_world.log, faults)) as bus, bus.transaction(service) as tx:
        tx.publish(Placed(id="o"))
    monkeypatch.setattr(housekeeping, "_ABANDONED_MS", -1)
    async with memory_world.running(service):
        await eventually(lambda: memory_world.rows("payments") == [("o", 0)])
        await eventually(lambda: memory_world.rows("payments", "SELECT * FROM choreo_outbox") == [])


async def test_concurrent_requests_take_turns_and_one_that_is_cancelled_writes_nothing(memory_world, web):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:
        reached = asyncio.Event()

        async def request(n: int) -> None:
            async with bus.transaction(web) as tx:
                tx.publish(Placed(id=f"o{n}"))
                if n == 3:
                    reached.set()
                    await asyncio.Event().wait()

        requests = [asyncio.create_task(request(n)) for n in range(8)]
        await reached.wait()
        requests[3].cancel()
        await asyncio.wait(requests)
    assert {data["id"] for _, data in await memory_world.events("orders")} == {f"o{n}" for n in range(8) if n != 3}


async def test_a_bus_that_is_not_connected_or_a_service_without_a_store_is_named(memory_world, web):
    bus = connect(memory_world.settings(), log=memory_world.log)
    with pytest.raises(ConfigurationError, match="not connected"):
        async with bus.transaction(web):
            pass
    from choreo import Service

    async with bus:
        with pytest.raises(ConfigurationError, match="no store"):
            async with bus.transaction(Service("clicks", transactional=True)):
                pass


def test_without_an_event_loop(tmp_path):
    settings = World(None, tmp_path).settings(log=f"sqlite:///{tmp_path}/log.db")  # type: ignore[arg-type]
    web = f"sqlite:///{tmp_path}/web.db"
    with connect_sync(settings, source="script") as bus:
        with bus.transaction(web) as tx:
            tx.db.execute(TABLE)
            tx.db.execute("INSERT INTO orders VALUES ('o')")
            saga = tx.publish(Placed(id="o"))
        with pytest.raises(sqlite3.OperationalError), bus.transaction(web) as tx:
            tx.db.execute(f"INSERT INTO nothing VALUES ({tx.publish(Placed(id='lost'))!r})")

    async def look() -> None:
        async with open_log(settings.log) as log:
            ((about, _),) = await World(log, tmp_path).events("orders")
            assert (about["source"], about["id"]) == ("script", saga)

    asyncio.run(look())


async def test_a_request_that_is_cancelled_when_it_is_committed_keeps_its_turn(memory_world, web):
    async with connect(memory_world.settings(), log=memory_world.log) as bus:

        async def request(n):
            async with bus.transaction(web) as tx:
                tx.publish(Placed(id="same", n=n))

        await request(0)
        (opened,) = bus._outboxes.values()
        committed, heard, commit = asyncio.Event(), asyncio.Event(), opened._store.commit

        async def slow(effects):
            row = await commit(effects)
            if effects.outbox:
                committed.set()
                await heard.wait()
            return row

        opened._store.commit = slow
        first, second = asyncio.create_task(request(1)), asyncio.create_task(request(2))
        await committed.wait()
        first.cancel()
        heard.set()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
    assert [data["n"] for _, data in await memory_world.events("orders")] == [0, 1, 2]


async def test_closing_does_not_wait_for_a_transaction_that_nobody_ends(memory_world, web):
    bus = connect(memory_world.settings(stop_grace=0.1), log=memory_world.log)
    await bus.__aenter__()
    forgotten = bus.transaction(web)
    await forgotten.__aenter__()
    await asyncio.wait_for(bus.__aexit__(None, None, None), 10)
    assert not await forgotten.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
