"""What is SQLite's own: addresses, files that are no store, disks that are full, rights that are missing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from choreo.errors import ConfigurationError, StoreError, StoreUnavailableError
from choreo.log import open_log
from choreo.log.port import NewRecord, TopicPartition
from choreo.store import Effects, Progress, make_store
from choreo.store.sqlite.store import SqliteStore

P0 = TopicPartition("orders", 0)
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open("payments", "CREATE TABLE IF NOT EXISTS notes (text TEXT UNIQUE)")
    yield store
    await store.close()


async def refused(path: Path) -> str:
    """What is said to who opens this file; nothing stays open."""
    with pytest.raises((ConfigurationError, StoreUnavailableError)) as refusal:
        await SqliteStore(path).open("payments")
    assert str(path) in str(refusal.value)
    return str(refusal.value)


@contextmanager
def limited(store: SqliteStore) -> Iterator[None]:
    """A full disk: the file cannot grow."""
    for connection in store._connections:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    for connection in store._connections:
        connection.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user whom the rights of files concern."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_a_relative_and_an_absolute_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a/b%20c.db", f"sqlite:///{tmp_path}/d.db?synchronous=normal"):
        store = make_store(url)
        await store.open("payments")
        await store.close()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.db")) == ["a/b c.db", "d.db"]


@pytest.mark.parametrize(
    "url", ["sqlite:///", "sqlite://host.db", "sqlite:///a.db?sync=off", "sqlite:///a.db?synchronous=off", "redis://x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        make_store(url)


# --- files that are no store ------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_left_alone(path):
    path.write_bytes(b"these are somebody's notes\n" * 100)
    assert "no SQLite database" in await refused(path)
    assert path.read_bytes().startswith(b"these are")


async def test_a_folder_is_no_store(path):
    path.mkdir()
    assert "cannot be opened" in await refused(path)


async def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert "tmp" in await refused(tmp_path / "file" / "store.db")


async def test_the_file_of_a_log_is_refused(path):
    async with open_log(f"sqlite:///{path}") as log:
        assert await log.topics() == {}
    assert "is the file of a log" in await refused(path)


async def test_a_store_of_a_newer_choreo_is_refused(path, store):
    store._writer.execute("INSERT INTO choreo_migrations VALUES (999)")
    await store.close()
    assert "newer choreo" in await refused(path)


async def test_a_database_of_the_users_own_becomes_a_store_too(path):
    with sqlite3.connect(path) as own:
        own.execute("CREATE TABLE customers (name TEXT)")
        own.execute("PRAGMA user_version = 42")
    own.close()
    store = SqliteStore(path)
    await store.open("payments")
    await store.begin()
    await store.db.execute("INSERT INTO customers VALUES ('Ada')")
    await store.commit(Effects({}))
    assert store._reader.execute("PRAGMA user_version").fetchone() == (42,)
    await store.close()


async def test_the_users_tables_may_be_any_sql(path):
    tables = """CREATE TABLE IF NOT EXISTS a (x TEXT DEFAULT '; --'); CREATE TABLE IF NOT EXISTS b (y) -- one; two
        ; CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON a BEGIN INSERT INTO b VALUES (1); DELETE FROM a; END
        -- the end"""
    for _ in range(2):
        store = SqliteStore(path)
        await store.open("payments", tables)
        await store.begin()
        await store.db.execute("INSERT INTO a VALUES ('x')")
        await store.commit(Effects({}))
        await store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchone() == (0, 2)
    connection.close()


# --- disks and rights -------------------------------------------------------------------------------------------------


async def test_a_full_disk_undoes_the_commit_and_the_next_one_works(store):
    taken = (await store.take_over([P0])).progress
    big = Effects(
        {P0: Progress(1, (), taken[P0].epoch)}, [b"k" * 16], [NewRecord("emitted", None, b"x" * 1_000_000, [])]
    )
    with limited(store), pytest.raises(StoreUnavailableError, match="make room"):
        await store.commit(big)
    assert not store.in_transaction
    assert await store.seen([b"k" * 16]) == set()
    await store.commit(big)
    assert await store.seen([b"k" * 16]) == {b"k" * 16}


async def test_a_full_disk_in_a_handlers_statement_is_the_stores_trouble(store):
    await store.begin()
    await store.savepoint()
    with limited(store), pytest.raises(StoreUnavailableError, match="make room"):
        await store.db.execute("INSERT INTO notes VALUES (?)", ("x" * 1_000_000,))
    await store.rollback()
    await store.begin()
    await store.db.execute("INSERT INTO notes VALUES ('y')")
    await store.commit(Effects({}))


async def test_a_handlers_temporary_tables_do_not_change_the_numbers_of_outbox_rows(store):
    epoch = (await store.take_over([P0])).progress[P0].epoch
    emitted = [NewRecord("emitted", None, b"x", [])]
    await store.begin()
    await store.db.execute("CREATE TEMP TABLE mine (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    await store.db.execute("INSERT INTO mine VALUES (40)")
    rows = [await store.commit(Effects({P0: Progress(n, (), epoch)}, outbox=emitted)) for n in range(3)]
    assert rows == [1, 2, 3]


async def test_an_sqlite_that_is_too_old_is_named(path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 35, 5))
    with pytest.raises(ConfigurationError, match=r"needs SQLite 3\.36"):
        await SqliteStore(path).open("payments")


async def test_a_mistake_in_a_handlers_sql_is_the_handlers(store):
    await store.begin()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.db.execute("INSERT INTO missing VALUES (1)")
    await store.rollback()


async def test_or_rollback_is_refused_for_it_would_undo_everybodys_writes(store):
    await store.begin()
    await store.db.execute("INSERT INTO notes VALUES ('a')")
    with pytest.raises(StoreError, match="refuses INSERT OR ROLLBACK"):
        await store.db.execute("INSERT  OR rollback INTO notes VALUES ('a')")
    assert store.in_transaction


async def test_a_file_that_may_not_be_written_is_named(tmp_path, path, store):
    await store.close()
    folder = tmp_path
    while folder != folder.parent and folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o77 == 0:
        folder.chmod(0o711)  # the temporary folder is its owner's alone
        folder = folder.parent
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with without_rights():
            told = await refused(path)
    finally:
        tmp_path.chmod(0o755)
    assert "rights" in told


async def test_a_folder_that_cannot_be_made_is_named():
    assert "not usable" in await refused(Path("/proc/choreo/store.db"))


async def test_a_closed_store_answers_nobody(path):
    store = SqliteStore(path)
    await store.open("payments")
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)  # its thread may be freeing the connections now
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await store.seen([b"key"])
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await store.take_over([P0])
    assert not store.in_transaction
    await closing
