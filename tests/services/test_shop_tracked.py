"""The shop with a tracker beside it: every order's saga is what its books say, on every log."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import pytest

from choreo import Settings
from choreo.choreography import Choreography
from choreo.cli import main
from choreo.log.reader import Reader, partitions_of
from choreo.saga.filters import EVERY, Compare
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.reading import sight
from choreo.saga.sighting import Sighting
from choreo.saga.store import TrackerStore, make_tracker_store
from choreo.saga.tracker import tracking
from choreo.saga.tracker.rebuilding import rebuild
from services.shop import services
from services.shop.events import OrderPlaced
from services.shop.model import Books, Outcome
from tests.servers.process import free_ports
from tests.services.conftest import Trial, Try
from tests.services.processes import KAFKA, ServiceProcess
from tests.support import eventually

GRAPH = Choreography.of(services).graph


async def test_every_order_is_a_saga_that_has_ended_as_the_books_say(
    trial: Try, log_url: str, placed: list[OrderPlaced], books: Books, tmp_path: Path
) -> None:
    store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
    await store.open()
    async with (
        trial(log_url) as shop,
        tracking(shop.settings, services, log=shop.log, store=store, group=f"tracker-{uuid4()}") as tracker,
    ):
        await shop.place(placed, duplicates=0.2)
        assert (await shop.settle(books)).findings == []
        await tracker.settled()
        await as_the_books_say(shop, store, placed)
        await as_folded_by_hand(shop, store)
        assert await store.waited_for() == {}
    await store.close()


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A log that other processes see."""
    if request.param == "kafka":
        return f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    return f"sqlite:///{tmp_path}/log.db"


class TrackerProcess(ServiceProcess):
    """`choreo tracker run services.shop`, in a group of its own."""

    def __init__(self, settings: Settings, group: str, environment: dict[str, str]) -> None:
        super().__init__("services.shop", ["tracker"], settings, environment)
        self._group = group

    def command(self) -> list[str]:
        *program, _, _ = super().command()
        return [*program, "tracker", "run", self.package, "--group", self._group]

    def told(self) -> str:
        return self.log_file.read_text()[-4_000:]


@pytest.mark.timeout(300)
async def test_a_tracker_killed_anywhere_goes_on_exactly_once(
    trial: Try, lasting_url: str, placed: list[OrderPlaced], books: Books, tmp_path: Path
) -> None:
    url, (port,) = f"sqlite:///{tmp_path}/tracker.db", free_ports(1)
    environment = {
        "CHOREO_TRACKER_STORE": url, "CHOREO_KAFKA": json.dumps(KAFKA if "kafka" in lasting_url else {}),
        "CHOREO_HEALTH_PORT": str(port),
    }  # fmt: skip
    rng = random.Random(7)
    async with trial(lasting_url) as shop:
        process = TrackerProcess(shop.settings, f"tracker-{uuid4()}", environment)
        for kill in range(5):
            await asyncio.to_thread(process.start)
            reader = await eventually(lambda: opened(url), patience=60)
            before = read(await reader.progress())
            await shop.place(placed[kill * 16 : kill * 16 + 16], duplicates=0.2)
            await eventually(lambda reader=reader, before=before: further(reader, before), patience=60)
            await reader.close()
            await asyncio.sleep(rng.random() * 0.3)  # anywhere in what it does
            await asyncio.to_thread(process.kill)
        assert (await shop.settle(books)).findings == []
        await asyncio.to_thread(process.start)
        store = await eventually(lambda: opened(url), patience=60)
        await eventually(lambda: is_as_the_books_say(shop, store, placed), process.told, patience=60)
        await eventually(lambda: answers(port), process.told, patience=60)
        await as_folded_by_hand(shop, store)
        await store.close()
        await asyncio.to_thread(process.stop)


async def opened(url: str) -> TrackerStore | None:
    store = make_tracker_store(url)
    try:
        await store.open(reads_only=True)
        await store.counts()
    except Exception:
        await store.close()
        return None
    return store


def read(progress) -> int:
    return sum(place.next for place in progress.values())


async def further(store: TrackerStore, before: int) -> bool:
    return read(await store.progress()) > before + 5


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return json.loads(answer.read()) == {"ok": True, "why": []}
    except OSError:  # it is starting, or says that it is not ready
        return False


async def test_a_rebuilt_store_says_the_same(
    trial: Try, placed: list[OrderPlaced], books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/tracker.db"
    async with trial(f"sqlite:///{tmp_path}/log.db") as shop:
        settings = shop.settings.model_copy(update={"tracker_store": url})
        async with tracking(settings, services, log=shop.log) as tracker:
            await shop.place(placed[:40], duplicates=0.2)
            await eventually(lambda: tracker.behind is not None and tracker.behind.records == 0)
            assert await rebuild(settings, services, log=shop.log) <= 40
            await shop.place(placed[40:])
            assert (await shop.settle(books)).findings == []
            await tracker.settled()
            reader = make_tracker_store(url)
            await reader.open(reads_only=True)
            await as_the_books_say(shop, reader, placed)
            live = await everything(reader)
            assert await rebuild(settings, services, log=shop.log) == len(live)
            assert await everything(reader) == live, "and who asks sees the new one at once"
            assert await reader.commits("payments", await a_place(reader)), "what groups had committed when is not lost"
            await as_folded_by_hand(shop, reader)
            await reader.close()
    assert await asyncio.to_thread(main, ["tracker", "status", "--store", url, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["records_behind"], said["sagas"]) == (0, 80)
    assert sum(said["states"].values()) == 80


async def a_place(store: TrackerStore):
    return next(at for group, at in await store.committed() if group == "payments")


async def test_instances_on_postgresql_share_the_work(
    trial: Try, placed: list[OrderPlaced], books: Books, postgres_url: str, tmp_path: Path
) -> None:
    """Each saga's events lie in partitions that both read."""
    url = f"{postgres_url}?schema=tracked_{uuid4().hex[:12]}"
    async with trial(f"sqlite:///{tmp_path}/log.db") as shop:
        settings = shop.settings.model_copy(update={"tracker_store": url})
        async with (
            tracking(settings, services, log=shop.log) as one,
            tracking(settings, services, log=shop.log) as two,
        ):
            await shop.place(placed, duplicates=0.2)
            assert (await shop.settle(books)).findings == []
            await one.settled()
            await two.settled()
            store = make_tracker_store(url)
            await store.open(reads_only=True)
            await eventually(lambda: is_as_the_books_say(shop, store, placed))
            assert await store.marked(10) == []
            await as_folded_by_hand(shop, store)
            await store.close()


async def test_only_declared_fields_are_searchable(trial: Try, placed: list[OrderPlaced], tmp_path: Path) -> None:
    store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
    await store.open()
    async with (
        trial("memory://") as shop,
        tracking(shop.settings, services, log=shop.log, store=store, searchable=["OrderPlaced.customer_id"]) as tracker,
    ):
        await shop.place(placed[:10])
        await tracker.settled()
        name = placed[3].customer_id
        rows = (await store.page(Compare("data.customer_id", "=", name))).rows
        assert {row.key for row in rows} == {order.order_id for order in placed[:10] if order.customer_id == name}
        assert list(await store.data_of(rows[0].saga)) == ["customer_id"]
    await store.close()


# --- what is to be so ----------------------------------------------------------------------------------------------


async def as_the_books_say(shop: Trial, store: TrackerStore, placed: Iterable[OrderPlaced]) -> None:
    states = {}
    for order in placed:
        row, *_ = (await store.page(Compare("key", "=", order.order_id))).rows  # an earlier test may have placed it too
        states[order.order_id] = row.state
    assert states == {
        order: "completed" if outcome is Outcome.CONFIRMED else "compensated"
        for order, outcome in shop.outcomes().items()
    }


async def is_as_the_books_say(shop: Trial, store: TrackerStore, placed: Iterable[OrderPlaced]) -> bool:
    try:
        await as_the_books_say(shop, store, placed)
    except (AssertionError, ValueError):
        return False
    return True


async def everything(store: TrackerStore) -> list[tuple]:
    rows = (await store.page(EVERY, limit=10_000)).rows
    seen = await store.sightings([row.saga for row in rows])
    return sorted((row, sorted(seen[row.saga].seen)) for row in rows)


async def as_folded_by_hand(shop: Trial, store: TrackerStore) -> None:
    """The store has the log's sagas, each as it is folded from all of its records."""
    places = await partitions_of(shop.log, GRAPH.topics)
    sagas: dict[str, list[Sighting]] = {}
    async with Reader(shop.log, dict(await shop.log.beginning_offsets(places))) as reader:
        async for record in reader.catch_up():
            if (seen := sight(record)) is not None:
                sagas.setdefault(seen.saga, []).append(seen)
    committed = {
        (group, at): position.offset
        for group in GRAPH.services
        for at, position in (await shop.log.committed(group, places)).items()
    }
    around = Surroundings(2**42, committed, {}, 2**42)
    rows = (await store.page(EVERY, limit=10_000)).rows
    assert {row.saga for row in rows} == set(sagas)
    there = await store.sightings(sagas)
    for row in rows:
        assert sorted(there[row.saga].seen) == sorted(sagas[row.saga]), "each record once"
        saga = fold(sagas[row.saga], GRAPH, around)
        told = (row.state, row.reason, row.outcome, row.events, row.started_ms, row.updated_ms, row.ended_ms)
        assert told == (
            saga.state, saga.reason, saga.outcome, len(saga.events), saga.started_ms, saga.updated_ms, saga.ended_ms,
        )  # fmt: skip
