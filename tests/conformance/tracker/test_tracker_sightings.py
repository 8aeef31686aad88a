"""What was seen is kept as it was, exactly once, by whoever owns the partition."""

from __future__ import annotations

import asyncio

import pytest

from choreo.errors import ConfigurationError, FencedError
from choreo.saga.store import Place, TrackerStore, make_tracker_store
from choreo.store import make_store
from choreo.wire.ids import new_event_id
from tests.conformance.tracker.sagas import (
    ORDERS,
    PAYMENTS,
    again,
    effect,
    event,
    fold,
    letter,
    put,
    settled,
    summary,
)

ODD = ["o-17", "A" * 14, "x" * 6, "ÄÖ\U0001f600", "01A224F8-4314-7262-9E8A-AE3961000790", " ", "0" * 36, "a b.c/d"]


async def seen_of(store: TrackerStore, saga: str):
    return sorted((await store.sightings([saga]))[saga].seen)


async def test_what_was_seen_comes_back_as_it_was(store: TrackerStore) -> None:
    saga = new_event_id()
    seen = [
        event(saga), effect(saga, 1), again(saga, 2), letter(saga, "l-1", 3),
        effect(saga, 4, compensates=new_event_id(), parent_id="no uuid", oddity="its key is no UTF-8", key="\\xff"),
        effect(saga, 5, traceparent="not a trace", produced_ms=-62135596800000),
        effect(saga, 6, traceparent=TRACE_UPPER, causation_id="o-1", event_id="no uuid either"),
    ]  # fmt: skip
    await put(store, *seen)
    assert await seen_of(store, saga) == sorted(seen)


TRACE_UPPER = "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"


@pytest.mark.parametrize("saga", ODD)
async def test_any_text_may_be_a_saga(store: TrackerStore, saga: str) -> None:
    await put(store, event(saga, 1), *(event(other, 10 + number) for number, other in enumerate(ODD) if other != saga))
    assert await seen_of(store, saga) == [event(saga, 1)]
    assert sorted(await store.marked(100)) == sorted(ODD)
    assert saga in await store.beginning_with(saga[:3], 10)
    assert await store.sagas_of(saga) == [saga]


async def test_read_twice_is_seen_once(store: TrackerStore) -> None:
    saga = new_event_id()
    for _ in range(2):
        await put(store, event(saga), effect(saga), settled("l-1"), letter(saga, "l-1"))
    assert len(await seen_of(store, saga)) == 4


async def test_progress_is_where_reading_goes_on(store: TrackerStore) -> None:
    assert await store.take_over([ORDERS, PAYMENTS]) == {ORDERS: 0, PAYMENTS: 0}
    await store.add([event(new_event_id(), 41)], {ORDERS: Place(42, 1_000)})
    await store.add([], {ORDERS: Place(44, 0)})
    assert await store.take_over([ORDERS, PAYMENTS]) == {ORDERS: 44, PAYMENTS: 0}
    assert (await store.progress())[ORDERS] == Place(44, 1_000)


async def test_who_does_not_own_a_partition_writes_nothing(store: TrackerStore) -> None:
    saga = new_event_id()
    await store.take_over([ORDERS])
    with pytest.raises(FencedError):
        await store.add([event(saga), effect(saga)], {ORDERS: Place(1, 0), PAYMENTS: Place(1, 0)})
    assert await store.sightings([saga]) == {}
    assert await store.marked(10) == []
    await put(store, event(saga), effect(saga))
    assert len(await seen_of(store, saga)) == 2, "what was undone was not half remembered"


@pytest.mark.needs("several_instances")
async def test_whoever_takes_over_fences_the_one_before(store: TrackerStore, tracker_url: str) -> None:
    other, saga = make_tracker_store(tracker_url), new_event_id()
    await other.open()
    try:
        await store.take_over([ORDERS, PAYMENTS])
        await store.add([event(saga)], {ORDERS: Place(1, 0)})
        assert await other.take_over([ORDERS]) == {ORDERS: 1}
        with pytest.raises(FencedError):
            await store.add([event(saga, 1)], {ORDERS: Place(2, 0)})
        await other.add([event(saga, 1)], {ORDERS: Place(2, 0)})
        await store.add([effect(saga)], {PAYMENTS: Place(1, 0)})
        assert len(await seen_of(store, saga)) == 3
    finally:
        await other.close()


async def test_a_sqlite_file_takes_one_instance(tmp_path) -> None:
    one, two = (make_tracker_store(f"sqlite:///{tmp_path}/t.db") for _ in range(2))
    await one.open()
    with pytest.raises(ConfigurationError, match="another instance of the tracker writes it"):
        await two.open()
    reader = make_tracker_store(f"sqlite:///{tmp_path}/t.db")
    await reader.open(reads_only=True)
    assert await reader.counts() == []
    await reader.close()
    await one.close()
    three = make_tracker_store(f"sqlite:///{tmp_path}/t.db")
    await three.open()
    await three.close()


async def test_a_store_that_is_not_there_cannot_be_asked(tracker_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no tracker's store .*choreo tracker run"):
        await make_tracker_store(tracker_url).open(reads_only=True)


async def test_resolutions_are_part_of_the_saga_whichever_comes_first(store: TrackerStore) -> None:
    early, late = new_event_id(), new_event_id()
    assert await put(store, settled("l-early")) == []
    await put(store, event(early), letter(early, "l-early", 5))
    await put(store, event(late, 1), letter(late, "l-late", 6))
    await fold(store, summary(early), summary(late))
    assert await store.marked(10) == []
    assert await put(store, settled("l-late", 7)) == [late]
    assert await store.marked(10) == [late], "what its letter became may change it"
    assert settled("l-early") in await seen_of(store, early)
    assert settled("l-late", 7) in await seen_of(store, late)
    assert await store.saga_of_letter("l-e") == [early]


async def test_events_are_found_by_their_ids(store: TrackerStore) -> None:
    saga, stranger = new_event_id(), new_event_id()
    await put(
        store, event(saga), effect(saga, 1), effect(saga, 2, event_id=stranger), effect(saga, 3, event_id="hook-7")
    )
    await put(store, event("o-5", 9, event_id=stranger))
    own = effect(saga, 1).event_id
    assert await store.sagas_of(own) == [saga]
    assert sorted(await store.sagas_of(stranger)) == sorted([saga, "o-5"])
    assert await store.sagas_of("hook-7") == [saga]
    assert await store.sagas_of(new_event_id()) == []


async def test_sagas_are_found_by_how_they_begin(store: TrackerStore) -> None:
    sagas = [new_event_id() for _ in range(3)]
    await put(store, *(event(saga, number) for number, saga in enumerate([*sagas, "order-1", "order-2"])))
    for length in (1, 7, 9, 12, 20, 36):
        assert sagas[0] in await store.beginning_with(sagas[0][:length], 10)
    assert await store.beginning_with(sagas[1], 10) == [sagas[1]]
    assert await store.beginning_with("order-", 10) == ["order-1", "order-2"]
    assert len(await store.beginning_with("", 2)) == 2


async def test_payload_fields_are_kept_by_saga(store: TrackerStore) -> None:
    saga = new_event_id()
    await store.take_over([ORDERS])
    data = [("order_id", "o 17", saga), ("lines.sku", "a", saga), ("lines.sku", "b", saga), ("lines.sku", "b", saga)]
    await store.add([event(saga)], {ORDERS: Place(1, 0)}, data)
    assert await store.data_of(saga) == {"order_id": ["o 17"], "lines.sku": ["a", "b"]}
    assert await store.data_of("another") == {}


async def test_many_are_written_side_by_side(store: TrackerStore) -> None:
    sagas = [new_event_id() for _ in range(1_700)]
    await put(store, *(event(saga, number) for number, saga in enumerate(sagas)))
    found, _ = await asyncio.gather(store.sightings(sagas), store.counts())
    assert len(found) == 1_700
    assert len(await store.marked(10_000)) == 1_700


async def test_what_is_somebody_elses_is_neither_used_nor_replaced(tracker_url: str) -> None:
    theirs = make_store(tracker_url)
    await theirs.open("payments")
    await theirs.close()
    refused = pytest.raises(ConfigurationError, match="is no tracker's store")
    rebuilt = make_tracker_store(tracker_url).beside()
    await rebuilt.open()
    with refused:
        await make_tracker_store(tracker_url).open()
    with refused:
        await make_tracker_store(tracker_url).open(reads_only=True)
    with refused:
        await make_tracker_store(tracker_url).replace(rebuilt)
    again = make_store(tracker_url)
    await again.open("payments")
    await again.close()
