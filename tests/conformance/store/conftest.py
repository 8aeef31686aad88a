"""The stores that the suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from choreo.store import Store
from choreo.store.sqlite.memory import MemoryDatabase, MemoryStore
from tests.conformance.store.world import World

_ALL = {"several_processes", "overlapping_transactions"}
_STORES = {"sqlite": _ALL, "memory": set[str](), "postgres": _ALL}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs over every store that has the abilities it is marked to need; nothing is skipped for lack of one."""
    if "world" in metafunc.fixturenames:
        needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
        able = [name for name, abilities in _STORES.items() if needed <= abilities]
        metafunc.parametrize("world", able, indirect=True)


@pytest.fixture
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Where a service's store is."""
    if request.param == "sqlite":
        world = World(f"sqlite:///{tmp_path}/deep/store.db", "?")
        yield world
        await world.close()
        return
    if request.param == "memory":
        database = MemoryDatabase()
        world = World("", "?", lambda: MemoryStore(database, "in memory"))
        yield world
        await world.close()
        database.connection.close()
        return
    server, schema = request.getfixturevalue("postgres_url"), f"test_{uuid4().hex}"
    world = World(f"{server}?schema={schema}", "%s")
    yield world
    await world.close()
    with psycopg.connect(server) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
async def store(world: World) -> Store:
    """One instance's, open."""
    return await world.open()
