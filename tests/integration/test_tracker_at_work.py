"""A tracker beside what goes wrong around it: clocks, topics that are not there, what others have left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from choreo.errors import ConfigurationError, LogUnavailableError
from choreo.log import Topic
from choreo.log.memory import MemoryLog
from choreo.log.port import NewRecord, TopicPartition
from choreo.runtime.settings import Settings
from choreo.saga.filters import EVERY
from choreo.saga.reading import sight
from choreo.saga.store import Place, TrackerStore, make_tracker_store
from choreo.saga.tracker import Tracker, run
from choreo.saga.tracker.rebuilding import rebuild
from choreo.wire.ids import new_event_id
from tests.tracker.play import GRAPH

NOW, HOUR = 1_800_000_000_000, 3_600_000
TRIPS = TopicPartition("trips", 0)


def record(saga: str, at_ms: int = NOW) -> NewRecord:
    headers = {"ce_id": saga, "ce_type": "TripRequested", "ce_source": "portal", "ce_time": "2027-01-15T08:00:00Z",
               "ce_correlationid": saga}  # fmt: skip
    return NewRecord("trips", b"k", b"x", [(name, value.encode()) for name, value in headers.items()], at_ms, 0)


async def append(log: MemoryLog, *records: NewRecord) -> None:
    producer = log.producer()
    await producer.append(records)
    await producer.close()


@pytest.fixture
async def log():
    async with MemoryLog() as log:
        await log.create_topics([Topic(name="trips", partitions=1, settings={"retention.ms": "-1"})])
        yield log


@pytest.fixture
async def store(tmp_path: Path):
    store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR])
async def test_how_far_it_has_read_is_not_told_by_the_clocks_of_producers(
    wrong_by: int, log: MemoryLog, store: TrackerStore
) -> None:
    """With one an hour ahead all timers of that hour would seem to be over; with one behind, none of the last hour."""
    now = [NOW]
    tracker = Tracker(log, store, GRAPH, now_ms=lambda: now[0])
    await store.take_over([TRIPS])
    for number in range(3):  # there is always one more than was read
        await append(log, record(new_event_id(), NOW + wrong_by))
        await tracker._look()
        await store.add([], {TRIPS: Place(number + 1, NOW + wrong_by)})
        now[0] += 2_000
    assert tracker.behind is not None
    assert tracker.behind.records == 1
    assert tracker.behind.reached_ms == NOW + 2_000, "the last look of which all was read, and no later"


async def test_all_that_was_left_to_be_folded_is(
    monkeypatch: pytest.MonkeyPatch, log: MemoryLog, store: TrackerStore
) -> None:
    """However many there are: those that the first look does not take, the next ones do."""
    monkeypatch.setattr(run, "_MANY", 4)
    monkeypatch.setattr(run, "_PART", 2)
    sagas = [new_event_id() for _ in range(23)]
    await append(log, *map(record, sagas))
    consumer = log.consumer(["trips"])
    seen = [sight(each) for each in await consumer.poll()]
    await consumer.close()
    await store.take_over([TRIPS])
    await store.add([each for each in seen if each is not None], {TRIPS: Place(len(sagas), NOW)})
    tracker = Tracker(log, store, GRAPH)
    working = asyncio.create_task(tracker.run())
    try:
        await tracker.settled()
        assert {row.saga for row in (await store.page(EVERY)).rows} == set(sagas)
    finally:
        working.cancel()


async def test_a_store_is_not_replaced_by_one_of_a_log_that_is_another(tmp_path: Path) -> None:
    settings = Settings(tracker_store=f"sqlite:///{tmp_path}/tracker.db")
    async with MemoryLog() as empty:
        with pytest.raises(ConfigurationError, match="has no topic of these services"):
            await asyncio.wait_for(rebuild(settings, GRAPH, log=empty), 20)
    assert not (tmp_path / "tracker.db").exists()


async def test_a_store_is_not_replaced_by_one_that_may_not_be_whole(
    monkeypatch: pytest.MonkeyPatch, log: MemoryLog, store: TrackerStore, tmp_path: Path
) -> None:
    await append(log, record(saga := new_event_id()))
    tracker = Tracker(log, store, GRAPH)
    working = asyncio.create_task(tracker.run())
    await tracker.settled()
    working.cancel()

    async def unknown(_: Tracker) -> None:
        raise LogUnavailableError("the log does not answer")

    monkeypatch.setattr(Tracker, "settled", unknown)
    with pytest.raises(LogUnavailableError):
        await rebuild(Settings(tracker_store=f"sqlite:///{tmp_path}/tracker.db"), GRAPH, log=log)
    assert [row.saga for row in (await store.page(EVERY)).rows] == [saga]


async def test_two_who_rebuild_at_once_do_not_spoil_the_store(store: TrackerStore, tmp_path: Path) -> None:
    """One at a time builds beside it; what that one has is what there is afterwards."""
    url = f"sqlite:///{tmp_path}/tracker.db"
    first, second = make_tracker_store(url).beside(), make_tracker_store(url).beside()
    await first.open()
    with pytest.raises(ConfigurationError, match="is in use"):
        await second.open()
    await first.note("whose", "the first one's")
    await make_tracker_store(url).replace(first)
    assert await store.notes() == {"whose": "the first one's"}
    with pytest.raises(ConfigurationError, match="rebuilt twice"):
        await make_tracker_store(url).replace(first)
    assert await store.notes() == {"whose": "the first one's"}
