"""What all worlds of sagas share."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.sagas.loop import StillLoop
from tests.sagas.world import Ground

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Schemas and empty stores; in memory where there is a folder for that."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(dir=_MEMORY if usable else tmp_path_factory.mktemp("sagas")) as folder:
        ground = Ground(Path(folder))
        with asyncio.Runner(loop_factory=StillLoop) as runner:
            runner.run(ground.prepare())
        yield ground


@pytest.fixture(autouse=True)
def _quiet(_short_tracebacks: None) -> None:
    """Thousands of sagas fail here on purpose: a failing plan is run again with logs by hand (see `test_saga_model`)."""
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> str:
    raise structlog.DropEvent
