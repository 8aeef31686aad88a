"""What is PostgreSQL's own: addresses, schemas, rights, and what a refusing server is said to have said."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest

from choreo.errors import ChoreoError, ConfigurationError, StoreError, StoreOwnedError, StoreUnavailableError
from choreo.store import Effects, make_store
from choreo.store.postgres.address import Address, schema_of
from choreo.store.postgres.store import PostgresStore
from tests.conformance.store.world import P0
from tests.servers.postgres import PASSWORD, USER
from tests.servers.process import free_ports

HOST = "db.example:5432"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """An administrator's connection."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def url(postgres_url: str, database: psycopg.AsyncConnection) -> AsyncIterator[str]:
    """A schema of its own."""
    schema = f"test_{uuid4().hex}"
    yield f"{postgres_url}?schema={schema}"
    await database.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
async def role(postgres_url: str, database: psycopg.AsyncConnection) -> AsyncIterator[tuple[str, str]]:
    """A user without any rights: its name, and the server's address for it."""
    name = f"role_{uuid4().hex}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield name, postgres_url.replace(f"{USER}:{PASSWORD}", f"{name}:pw")
    await database.execute(f"DROP OWNED BY {name}")
    await database.execute(f"DROP ROLE {name}")


@contextlib.asynccontextmanager
async def opened(url: str, service: str = "payments", tables: str = "") -> AsyncIterator[PostgresStore]:
    store = make_store(url)
    await store.open(service, tables)
    try:
        yield store
    finally:
        await store.close()


async def refused(url: str, kind: type[ChoreoError]) -> str:
    """What is said to who opens this store: one line, without the password."""
    with pytest.raises(kind) as refusal:
        await make_store(url).open("payments")
    told = str(refusal.value)
    assert "\n" not in told
    assert PASSWORD not in told
    assert "wrong-one" not in told
    return told


# --- addresses --------------------------------------------------------------------------------------------------------


def test_the_password_is_never_shown_and_options_stay():
    address = Address.parse(f"postgresql://ann:s3cret@{HOST},b:5433/shop?schema=mine&sslmode=require&password=again")
    assert address.shown == f"postgresql://ann@{HOST},b:5433/shop"
    assert address.schema == "mine"
    assert address.conninfo == f"postgresql://ann:s3cret@{HOST},b:5433/shop?sslmode=require&password=again"


@pytest.mark.parametrize(
    "url", ["postgresql://", "postgresql://u:s3cret@/", f"postgresql://u:s3cret@{HOST}", "postgres:///"]
)
def test_an_address_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host") as refusal:
        make_store(url)
    assert "s3cret" not in str(refusal.value)


def test_an_unknown_kind_of_store_is_refused_without_its_password():
    with pytest.raises(ConfigurationError, match="mysql") as refusal:
        make_store(f"mysql://u:s3cret@{HOST}/db")
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("service", "schema"),
    [
        ("payments", "payments"),
        ("Fraud-Check.v2", "fraud_check_v2"),
        ("2nd", "_2nd"),
        ("pg_x", "_pg_x"),
        ("a" * 99, "a" * 63),
    ],
)
def test_a_service_has_a_schema_of_its_own(service, schema):
    assert schema_of(service) == schema


def test_without_psycopg_the_remedy_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("choreo.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'choreo\[postgres\]'"):
        make_store(f"postgresql://u@{HOST}/db")


# --- a server that refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "remedy"),
    [
        ((PASSWORD, "wrong-one"), ConfigurationError, "check the user and the password"),
        ((f"{USER}:", "nobody:"), ConfigurationError, "check the user and the password"),
        (("/postgres", "/missing"), ConfigurationError, "create the database"),
        (("/postgres", "/postgres?sslmode=require"), ConfigurationError, "sslmode"),
        (("/postgres", "/postgres?colour=blue"), ConfigurationError, "options in its address"),
        (("127.0.0.1", "no.such.host.invalid"), StoreUnavailableError, "check the host"),
    ],
)
async def test_a_wrong_address_is_said_in_one_line(postgres_url, change, kind, remedy):
    assert remedy in await refused(postgres_url.replace(*change), kind)


async def test_a_server_that_is_down_may_come_back():
    (port,) = free_ports(1)
    told = await refused(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db", StoreUnavailableError)
    assert "Connection refused" in told
    assert "is the server up" in told


async def test_a_user_without_rights_is_told_which(role, database):
    name, url = role
    assert "grant the user CREATE" in await refused(f"{url}?schema=s_{name}", ConfigurationError)
    await database.execute(f"CREATE SCHEMA s_{name}")
    try:
        told = await refused(f"{url}?schema=s_{name}", ConfigurationError)
        assert f"may not use the schema 's_{name}'" in told
        await database.execute(f"GRANT USAGE, CREATE ON SCHEMA s_{name} TO {name}")
        async with opened(f"{url}?schema=s_{name}"):
            pass
    finally:
        await database.execute(f"DROP SCHEMA s_{name} CASCADE")


async def test_a_read_only_server_may_become_one_that_takes_writes(role, database):
    name, url = role
    await database.execute(f"GRANT CREATE ON DATABASE postgres TO {name}")
    await database.execute(f"ALTER ROLE {name} SET default_transaction_read_only = on")
    assert "read-only" in await refused(f"{url}?schema=s_{name}", StoreUnavailableError)


async def test_too_many_connections_may_become_fewer(role, database):
    name, url = role
    await database.execute(f"ALTER ROLE {name} CONNECTION LIMIT 1")
    assert "too many connections" in await refused(url, StoreUnavailableError)


# --- schemas ----------------------------------------------------------------------------------------------------------


async def test_services_share_a_database_each_in_its_own_schema(postgres_url, database):
    names = [f"Svc.{uuid4().hex}" for _ in range(2)]
    tables = "CREATE TABLE IF NOT EXISTS notes (id TEXT)"
    try:
        async with opened(postgres_url, names[0], tables) as a, opened(postgres_url, names[1], tables) as b:
            for store in (a, b):
                await store.begin()
                await store.db.execute("INSERT INTO notes VALUES ('x')")
                await store.commit(Effects({}, [b"k" * 16]))
        for name in names:
            cursor = await database.execute(f"SELECT count(*) FROM {schema_of(name)}.notes")
            assert await cursor.fetchone() == (1,)
    finally:
        for name in names:
            await database.execute(f"DROP SCHEMA IF EXISTS {schema_of(name)} CASCADE")


async def test_two_names_that_make_one_schema_are_told_apart(url):
    async with opened(url, "a-b"):
        with pytest.raises(StoreOwnedError, match=r"'a\.b'.*schema"):
            await make_store(url).open("a.b")


async def test_a_store_of_a_newer_choreo_is_refused(url, database):
    schema = url.rpartition("=")[2]
    async with opened(url):
        await database.execute(f"INSERT INTO {schema}.choreo_migrations VALUES (999)")
    assert "newer choreo" in await refused(url, ConfigurationError)


# --- handlers' statements ---------------------------------------------------------------------------------------------

PARENTS = """
CREATE TABLE IF NOT EXISTS parents (id int PRIMARY KEY);
CREATE TABLE IF NOT EXISTS children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
"""


async def test_a_deferred_constraint_speaks_up_while_it_is_the_handlers_own(url):
    async with opened(url, tables=PARENTS) as store:
        await store.begin()
        await store.savepoint()
        await store.db.execute("INSERT INTO children VALUES (1)")
        await store.db.execute("INSERT INTO parents VALUES (1)")
        await store.release_savepoint()
        await store.savepoint()
        await store.db.execute("INSERT INTO children VALUES (2)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await store.release_savepoint()
        await store.rollback_to_savepoint()
        await store.savepoint()
        await store.db.execute("INSERT INTO children VALUES (3)")
        await store.db.execute("INSERT INTO parents VALUES (3)")
        await store.release_savepoint()
        await store.commit(Effects({}))
        await store.begin()
        assert await store.db.fetch_all("SELECT parent FROM children ORDER BY 1") == [(1,), (3,)]


async def test_a_handler_cannot_slip_a_commit_in_behind_another_statement(url):
    async with opened(url, tables="CREATE TABLE IF NOT EXISTS notes (id TEXT)") as store:
        await store.begin()
        for _ in range(2):
            await store.savepoint()
            with pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"):
                await store.db.execute("INSERT INTO notes VALUES ('a'); COMMIT")
            await store.rollback_to_savepoint()
        for sql in ("START TRANSACTION", "ABORT", "PREPARE TRANSACTION 'x'"):
            with pytest.raises(StoreError, match=r"ctx\.db refuses"):
                await store.db.execute(sql)
        await store.rollback()
        await store.begin()
        assert await store.db.fetch_all("SELECT * FROM notes") == []


async def test_percent_signs_and_results_that_are_none(url):
    async with opened(url, tables="CREATE TABLE IF NOT EXISTS notes (id TEXT)") as store:
        await store.begin()
        assert await store.db.fetch_one("INSERT INTO notes VALUES ('100%')") is None
        assert await store.db.fetch_all("INSERT INTO notes VALUES (%s)", ("50%",)) == []
        assert await store.db.fetch_one("SELECT id FROM notes WHERE id LIKE '1%'") == ("100%",)
        assert await store.db.fetch_one("INSERT INTO notes VALUES (%s) RETURNING id", ("7",)) == ("7",)


async def test_tables_come_and_go_between_savepoints(url):
    """psycopg forgets what it has prepared when a table goes; the statements after that must not miss it."""
    async with opened(url) as store:
        for _ in range(3):
            await store.begin()
            for keep in (True, False, True):
                await store.savepoint()
                await store.db.execute("CREATE TABLE scratch (id int)")
                await store.db.execute_many("INSERT INTO scratch VALUES (%s)", [(1,), (2,)])
                await store.db.execute("DROP TABLE scratch")
                await (store.release_savepoint() if keep else store.rollback_to_savepoint())
            await store.commit(Effects({}, [uuid4().bytes]))


async def test_a_handler_that_goes_on_after_a_failed_statement_loses_its_own_writes_and_nobody_elses(url):
    async with opened(url, tables="CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY)") as store:
        await store.begin()
        for name, kept in (("a", True), ("a", False), ("b", True)):
            await store.savepoint()
            with contextlib.nullcontext() if kept else pytest.raises(psycopg.errors.UniqueViolation):
                await store.db.execute("INSERT INTO notes VALUES (%s)", (name,))
            with contextlib.nullcontext() if kept else pytest.raises(StoreError, match="one of its statements failed"):
                await store.release_savepoint()
            if not kept:
                await store.rollback_to_savepoint()
        await store.commit(Effects({}))
        await store.begin()
        assert await store.db.fetch_all("SELECT id FROM notes ORDER BY id") == [("a",), ("b",)]


async def test_a_handlers_sub_tasks_take_turns(url):
    async with opened(url, tables="CREATE TABLE IF NOT EXISTS notes (id int PRIMARY KEY)") as store:
        await store.begin()
        for first in (0, 20):
            await store.savepoint()
            rows = range(first, first + 20)
            await asyncio.gather(*(store.db.execute("INSERT INTO notes VALUES (%s)", (row,)) for row in rows))
            late = asyncio.ensure_future(store.db.execute("INSERT INTO notes VALUES (%s)", (first + 100,)))
            await asyncio.sleep(0)
            await (store.rollback_to_savepoint() if first else store.release_savepoint())
            await late
        await store.commit(Effects({}))
        await store.begin()
        assert await store.db.fetch_all("SELECT id FROM notes ORDER BY id") == [(n,) for n in (*range(20), 100)]


async def test_choreos_tables_may_be_mended_while_it_runs(url, database):
    schema = url.rpartition("=")[2]
    async with opened(url) as store:
        await database.execute(f"ALTER TABLE {schema}.choreo_progress RENAME TO gone")
        for call in (store.take_over([P0]), store.give_back({P0: 1})):
            with pytest.raises(StoreUnavailableError, match="choreo_progress"):
                await call
        await database.execute(f"ALTER TABLE {schema}.gone RENAME TO choreo_progress")
        assert (await store.take_over([P0])).progress[P0].watermark == -1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_savepoint_that_was_never_made_undoes_nobody_elses_writes(url, begun):
    """The server cancels whatever it is at: that may be what came along with a handler's statement."""
    async with opened(url, tables="CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY)") as store:
        await store.begin()
        if begun:
            await store.savepoint()
            await store.db.execute("INSERT INTO notes VALUES ('a')")
            await store.release_savepoint()
        await store.savepoint()
        store._transaction._unsent.insert(0, (b"SELECT 1 / 0", None))  # so neither BEGIN nor SAVEPOINT is done
        with pytest.raises(psycopg.errors.DivisionByZero):
            await store.db.execute("INSERT INTO notes VALUES ('b')")
        for call in (store.db.execute("INSERT INTO notes VALUES ('c')"), store.rollback_to_savepoint()):
            with pytest.raises((StoreUnavailableError, psycopg.errors.InFailedSqlTransaction)):
                await call
        with pytest.raises(StoreUnavailableError, match="lost its transaction"):
            await store.commit(Effects({}))
        await store.begin()
        assert await store.db.fetch_all("SELECT id FROM notes") == []


async def test_a_mistake_in_a_handlers_sql_is_the_handlers(url):
    async with opened(url) as store:
        await store.begin()
        await store.savepoint()
        with pytest.raises(psycopg.errors.UndefinedTable):
            await store.db.execute("INSERT INTO missing VALUES (1)")
        await store.rollback_to_savepoint()
        await store.commit(Effects({}, [b"k" * 16]))
        assert await store.seen([b"k" * 16]) == {b"k" * 16}
