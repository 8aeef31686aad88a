"""Questions without a tracker: the log is read once, into a store that is thrown away afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from choreo.graph import Graph
from choreo.log.port import Log, TopicPartition
from choreo.log.reader import Reader, partitions_of
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.reading import sight
from choreo.saga.store import Place, TrackerStore, make_tracker_store
from choreo.saga.tracker.commits import Commits, read_by
from choreo.saga.tracker.summary import folded

_AT_ONCE = 1000


@asynccontextmanager
async def read_now(log: Log, graph: Graph) -> AsyncIterator[TrackerStore]:
    """A store with all sagas that the log tells of now."""
    with TemporaryDirectory(prefix="choreo-saga-") as folder:
        store = make_tracker_store(f"sqlite:///{Path(folder) / 'sagas.db'}")
        await store.open()
        try:
            await _read(log, graph, store)
            yield store
        finally:
            await store.close()


async def _read(log: Log, graph: Graph, store: TrackerStore) -> None:
    there = await log.topics()
    partitions = await partitions_of(log, [name for name in graph.topics if name in there])
    begins = await log.beginning_offsets(partitions)
    await store.take_over(partitions)
    if partitions:
        async with Reader(log, begins) as reader:
            await _add(reader, store)
    now_ms = time.time_ns() // 1_000_000
    committed = await Commits(log).of(read_by(graph, partitions))
    await store.advance(committed, now_ms)
    await store.note("behind", json.dumps({"reached_ms": now_ms}))
    around = Surroundings(now_ms, committed, begins, now_ms)
    while marked := await store.marked(_AT_ONCE):
        seen = await store.sightings(marked)
        await store.keep([folded(fold(one.seen, graph, around), one, graph, around) for one in seen.values()])


async def _add(reader: Reader, store: TrackerStore) -> None:
    seen, progress = [], dict[TopicPartition, Place]()
    async for record in reader.catch_up():
        progress[TopicPartition(record.topic, record.partition)] = Place(record.offset + 1, record.timestamp)
        if (sighting := sight(record)) is not None:
            seen.append(sighting)
        if len(seen) >= _AT_ONCE:
            await store.add(seen, progress)
            seen, progress = [], {}
    await store.add(seen, progress)
