"""The tracker against the ground truth: sagas of all states, shuffled over partitions, twice and late, read from a log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from choreo.log import Topic, TopicPartition
from choreo.log.memory import MemoryLog
from choreo.log.port import Position
from choreo.saga.filters import EVERY
from choreo.saga.fold import fold
from choreo.saga.reading import sight
from choreo.saga.sighting import Sighting
from choreo.saga.store import TrackerStore, make_tracker_store
from choreo.saga.tracker import Options, Tracker
from choreo.saga.tracker.folding import Folder
from choreo.saga.tracker.shapes import Shapes
from choreo.saga.tracker.summary import summary_of
from tests.tracker.comparing import differences
from tests.tracker.laying import World
from tests.tracker.play import GRAPH
from tests.tracker.truth import NOW_MS, truths


class Told:
    """A log whose groups have committed what the world says."""

    def __init__(self, log: MemoryLog, world: World) -> None:
        self._log, self._world = log, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        found = self._world.around.committed
        return {at: Position(found[group, at]) for at in partitions if (group, at) in found}


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tracker.db"
        return
    server, schema = request.getfixturevalue("postgres_url"), f"truth_{uuid4().hex[:12]}"
    yield f"{server}?schema={schema}"
    with psycopg.connect(server) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def right(world: World, store: TrackerStore) -> list[str]:
    """What the store says otherwise than is true."""
    rows = {row.saga: row for row in (await store.page(EVERY, limit=100_000)).rows}
    seen = await store.sightings(rows)
    wrong = [f"{truth} is not there" for truth in world.truths if truth.saga not in rows]
    for truth in world.truths:
        if truth.saga in rows:
            saga = fold(seen[truth.saga].seen, GRAPH, world.around)
            wrong += [f"{truth}: {said}" for said in differences(truth, saga)]
            if rows[truth.saga] != summary_of(saga)._replace(changes_ms=rows[truth.saga].changes_ms):
                both = zip(rows[truth.saga]._fields, rows[truth.saga], summary_of(saga), strict=True)
                wrong.append(f"{truth.state} {[each for each in both if each[1] != each[2]]} {truth}")
    return wrong


async def test_what_the_tracker_says_is_true(store_url: str) -> None:
    world = World(list(truths(seed=5, count=1_200)), seed=5)
    records = world.records
    store = make_tracker_store(store_url)
    await store.open()
    async with MemoryLog() as log:
        topics = [Topic(name=name, partitions=number) for name, number in world.partitions.items()]
        await log.create_topics(topics[::2])
        tracker = Tracker(Told(log, world), store, GRAPH, Options(group="truth"), now_ms=lambda: NOW_MS)  # type: ignore[arg-type]
        working = asyncio.create_task(tracker.run())
        producer = log.producer()
        await producer.append([new for new in records if new.topic in {topic.name for topic in topics[::2]}])
        await tracker.settled()
        await log.create_topics(topics)  # topics that come later are read too
        await producer.append([new for new in records if new.topic not in {topic.name for topic in topics[::2]}])
        while tracker.behind is None or len(await store.progress()) < sum(world.partitions.values()):
            assert not working.done()
            await asyncio.sleep(0.02)
        await tracker.settled()
        tracker._touch(await store.due(NOW_MS + 10_000, 10_000))  # this clock stands: what is looked at again soon
        await tracker.settled()
        assert await right(world, store) == []
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_reading_and_folding_gives_the_same(tmp_path: Path, seed: int) -> None:
    """Partitions are read by turns that chance takes, sagas are folded in between, by whatever is known then."""
    world, chance = World(list(truths(seed=seed, count=250)), seed=seed), random.Random(seed)
    store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
    await store.open()
    folder = Folder(store, GRAPH)
    ahead = {at: [sight(record) for record in records] for at, records in world.lying.items()}
    await store.take_over(ahead)
    while ahead:
        at = chance.choice(list(ahead))
        taken = [seen for seen in ahead[at][: chance.randrange(1, 80)] if seen is not None]
        ahead[at] = ahead[at][len(taken) :]
        if not ahead[at]:
            del ahead[at]
        await store.add(taken, {})
        if chance.random() < 0.3:
            await folder.fold(await store.marked(chance.randrange(1, 200)), NOW_MS)
        if chance.random() < 0.2:
            some = {key: offset for key, offset in world.around.committed.items() if chance.random() < 0.3}
            folder.note(some)
            await store.advance(some, NOW_MS)
    folder.note(world.around.committed)
    folder.beginnings, folder.reached_ms = world.around.beginnings, NOW_MS
    await store.advance(dict(world.around.committed), NOW_MS)
    while await store.due(NOW_MS + 10_000, 10_000):
        pass
    while marked := await store.marked(100):
        await folder.fold(marked, NOW_MS)
    assert await right(world, store) == []
    await store.close()


def test_a_shape_says_what_a_fold_says() -> None:
    """Of thousands of sagas, many of one shape, no one is taken for what it is not."""
    world = World(list(truths(seed=3, count=4_000)), seed=3, duplicates=0.0)
    sagas: dict[str, list[Sighting]] = {}
    for records in world.lying.values():
        for record in records:
            if (seen := sight(record)) is not None:
                sagas.setdefault(seen.saga, []).append(seen)
    shapes = Shapes(GRAPH)
    shapes.around(world.around.committed)
    for seen in sagas.values():
        saga, known = fold(seen, GRAPH, world.around), shapes.summary(seen)
        if known is None:
            shapes.learn(seen, saga, world.around)
        else:
            assert known == summary_of(saga)
    assert shapes.known > 100
    assert shapes.wrong == 0
