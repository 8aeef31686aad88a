"""Services over the embedded logs, in memory and in a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from weakref import WeakSet

import pytest

from choreo.log import open_log
from choreo.log.memory import MemoryLog
from choreo.observe.sources import Source, sources
from tests.integration.runtime_world import World


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Somewhere to run services."""
    file = f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    async with MemoryLog() if request.param == "memory" else open_log(file) as log:
        yield World(log, tmp_path)


@pytest.fixture
async def memory_world(tmp_path: Path) -> AsyncIterator[World]:
    """Where the log makes no difference."""
    async with MemoryLog() as log:
        yield World(log, tmp_path)


@pytest.fixture
def alone() -> Iterator[WeakSet[Source]]:
    """Who shows numbers: nobody else's, such as those of instances that other tests have let crash."""
    others = set(sources)
    sources.clear()
    yield sources
    sources.clear()
    sources.update(others)
