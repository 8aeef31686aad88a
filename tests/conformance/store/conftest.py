"""The stores that the suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from choreo.store import Store
from tests.conformance.store.world import World


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Where a service's store is."""
    if request.param == "sqlite":
        world = World(f"sqlite:///{tmp_path}/deep/store.db", "?")
        yield world
        await world.close()
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
