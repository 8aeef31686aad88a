"""The tracker's stores that the suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from choreo.saga.store import TrackerStore, make_tracker_store

_SEVERAL = "several_instances"
_STORES = {"sqlite": set[str](), "postgres": {_SEVERAL}}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test runs over every store that has the abilities it is marked to need."""
    if "tracker_url" in metafunc.fixturenames:
        needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
        able = [name for name, abilities in _STORES.items() if needed <= abilities]
        metafunc.parametrize("tracker_url", able, indirect=True)


@pytest.fixture
async def tracker_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Where a store is that nobody has opened yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deep/tracker.db"
        return
    server, schema = request.getfixturevalue("postgres_url"), f"test_{uuid4().hex}"
    yield f"{server}?schema={schema}"
    with psycopg.connect(server) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
async def store(tracker_url: str) -> AsyncIterator[TrackerStore]:
    """Open, for one instance."""
    store = make_tracker_store(tracker_url)
    await store.open()
    yield store
    await store.close()
