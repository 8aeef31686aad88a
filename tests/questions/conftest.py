"""A log of the shop's demo: 40 orders, confirmed, cancelled, and one with a dead letter. Made once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from choreo.choreography import Choreography
from choreo.log import open_log
from choreo.observe.serving import served
from choreo.saga.questions import Questions
from choreo.saga.questions.fromlog import read_now
from choreo.web.app import make_app
from choreo.wire import open_registry
from services.shop import services

ROOT = Path(__file__).parents[2]
GRAPH = Choreography.of(services).graph
TOKEN = "a-token-of-tests-only"  # noqa: S105 - opens nothing


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the log."""
    folder = tmp_path_factory.mktemp("shop")
    log = f"sqlite:///{folder / 'log.db'}"
    command = [str(Path(sys.executable).parent / "choreo"), "demo", "shop", "--count", "40", "--json", "--log", log]
    environment = {**os.environ, "TMPDIR": str(folder), "CHOREO_REGISTRY": str(ROOT / "schemas")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["dead_letters"]["loyalty"] == 1
    return log


@asynccontextmanager
async def asking(address: str) -> AsyncIterator[Questions]:
    """Somebody who answers, over what the log says now."""
    async with (
        open_log(address) as log,
        aclosing(open_registry(str(ROOT / "schemas"))) as registry,
        read_now(log, GRAPH) as store,
    ):
        yield Questions(store, log, registry, GRAPH)


@pytest.fixture
async def questions(shop_log: str) -> AsyncIterator[Questions]:
    async with asking(shop_log) as found:
        yield found


class Server(NamedTuple):
    """The API at work, in a thread of its own."""

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What whoever knows the token says."""
        return {"authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="session")
def server(shop_log: str) -> Iterator[Server]:
    ready, ports = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def work() -> None:
        async with asking(shop_log) as found, served(make_app(found, TOKEN), "127.0.0.1", 0) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(work())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(60)
    yield Server(f"http://127.0.0.1:{ports[0]}", TOKEN)
    loop.call_soon_threadsafe(stop.set)
    thread.join()
