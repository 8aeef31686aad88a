"""A trial of the shop on any log, with fresh stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from choreo import Settings, connect
from choreo.log import Log, TopicPartition, open_log
from choreo.runtime.instance import Instance
from choreo.runtime.run import running
from services.shop import services
from services.shop.audit import audit, ended, findings_now, open_stores, told
from services.shop.events import OrderPlaced
from services.shop.model import Books, Outcome, books_of
from services.shop.orders_generator import orders
from services.trial import Ends, Verdict, begin, ends_of, publish, settle

SCHEMAS = str(Path(__file__).parents[2] / "schemas")


class Trial(NamedTuple):
    """The shop at work in this process."""

    settings: Settings
    log: Log
    since: Ends
    instances: dict[str, Instance]

    async def place(self, placed: list[OrderPlaced], *, duplicates: float = 0.0) -> int:
        async with connect(self.settings, log=self.log) as bus:
            return await publish(bus, placed, duplicates=duplicates)

    async def settle(self, books: Books, *, without: str = "-") -> Verdict:
        """Wait until the books are right, save for the findings that begin with a word."""

        def look() -> list[str]:
            return [each for each in findings_now(self.settings.store, books) if not each.startswith(without)]

        return await settle(services, self.log, look, since=self.since)

    async def grown(self) -> dict[str, int]:
        """How many records each topic has got."""
        grown: dict[str, int] = {}
        for at, end in (await ends_of(services, self.log)).items():
            grown[at.topic] = grown.get(at.topic, 0) + end - self.since.get(TopicPartition(*at), 0)
        return grown

    def events(self) -> int:
        """How many different events there were: those customers were told of, and of points, which they were not."""
        with open_stores(self.settings.store) as stores:
            points = stores["loyalty"].execute("SELECT count(*) FROM points").fetchone()[0]
            return told(stores).total() + int(points)

    def outcomes(self) -> dict[str, Outcome | None]:
        with open_stores(self.settings.store) as stores:
            return ended(stores)

    def findings(self, books: Books) -> list[str]:
        with open_stores(self.settings.store) as stores:
            return audit(stores, books)


Try = Callable[..., AbstractAsyncContextManager[Trial]]


@pytest.fixture
def trial(tmp_path: Path) -> Try:
    """Start the shop on the log at an address: `async with trial("memory://") as shop`."""
    number = iter(range(100))

    @asynccontextmanager
    async def start(url: str, registry: str = SCHEMAS) -> AsyncIterator[Trial]:
        folder = tmp_path / f"stores-{next(number)}"
        settings = Settings(log=url, store=f"sqlite:///{folder}/{{service}}.db", registry=registry, create_topics=True)
        folder.mkdir()
        async with open_log(url) as log:
            since = await begin(services, settings, log)
            async with running(services, settings, log=log) as instances:
                yield Trial(settings, log, since, instances)

    return start


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each log the shop must run on; the real Kafka is one that earlier tests have used."""
    if request.param == "kafka":
        return f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    return {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/log.db"}[request.param]


@pytest.fixture
def placed() -> list[OrderPlaced]:
    return orders(7, 80)


@pytest.fixture
def books(placed: list[OrderPlaced]) -> Books:
    return books_of(placed)
