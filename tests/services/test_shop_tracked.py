"""The shop with a tracker beside it: every order's saga is what its books say, on every log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from uuid import uuid4

from choreo.choreography import Choreography
from choreo.log.reader import Reader, partitions_of
from choreo.saga.filters import EVERY, Compare
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.reading import sight
from choreo.saga.store import make_tracker_store
from choreo.saga.tracker import tracking
from services.shop import services
from services.shop.events import OrderPlaced
from services.shop.model import Books, Outcome
from tests.services.conftest import Trial, Try

GRAPH = Choreography.of(services).graph


async def test_every_order_is_a_saga_that_has_ended_as_the_books_say(
    trial: Try, log_url: str, placed: list[OrderPlaced], books: Books, tmp_path: Path
) -> None:
    store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
    await store.open()
    try:
        async with (
            trial(log_url) as shop,
            tracking(shop.settings, services, log=shop.log, store=store, group=f"tracker-{uuid4()}") as tracker,
        ):
            await shop.place(placed, duplicates=0.2)
            assert (await shop.settle(books)).findings == []
            await tracker.settled()
            outcomes = shop.outcomes()
            states = {}
            for order in placed:
                (row,) = (await store.page(Compare("key", "=", order.order_id))).rows
                states[order.order_id] = row.state
            expected = {
                order: "completed" if outcome is Outcome.CONFIRMED else "compensated"
                for order, outcome in outcomes.items()
            }
            assert states == expected
            assert Counter({each.state: each.sagas for each in await store.counts()}) >= Counter(states.values())
            assert await folded_by_hand(shop, store) >= len(placed)
    finally:
        await store.close()


async def folded_by_hand(shop: Trial, store) -> int:
    """How many sagas the store has as they are folded from the log at once."""
    places = await partitions_of(shop.log, GRAPH.topics)
    sagas: dict[str, list] = {}
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
    page, found = await store.page(EVERY, limit=10_000), 0
    for row in page.rows:
        saga = fold(sagas[row.saga], GRAPH, around)
        assert (row.state, row.reason, row.outcome, row.events) == (
            saga.state,
            saga.reason,
            saga.outcome,
            len(saga.events),
        )
        assert (row.started_ms, row.updated_ms, row.ended_ms) == (saga.started_ms, saga.updated_ms, saga.ended_ms)
        found += 1
    return found
