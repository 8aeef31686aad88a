"""The ground truth laid into a real log, and a tracker that is killed while it reads: what it makes of it is compared."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from choreo.log import Log, Topic, open_log
from choreo.log.port import TopicPartition
from choreo.saga.fold import fold
from choreo.saga.model import Surroundings
from choreo.saga.store import TrackerStore, make_tracker_store
from choreo.saga.tracker import Options, Tracker
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.tracker.child import GROUP
from tests.tracker.comparing import differences
from tests.tracker.laying import World
from tests.tracker.play import GRAPH
from tests.tracker.truth import NOW_MS, Truth, truths

ROOT = Path(__file__).parents[2]
SETUPS = ("embedded", "kafka", "kafka-postgres")
_CHUNK = 200
_LIVES = (0.2, 1.5)
"""Seconds that a tracker lives at most after it has begun to work."""


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        states: how many sagas there are in each state, in truth.
        kills: how often the tracker was killed.
        findings: where the tracker, or the one that was rebuilt, says something else than is true.
    """

    states: Counter[str]
    records: int
    kills: int = 0
    findings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For reading."""
        counted = ", ".join(f"{number:,} {state}" for state, number in self.states.most_common())
        head = f"{self.states.total():,} sagas in {self.records:,} records ({counted}); the tracker was killed {self.kills} times"
        return "\n".join([head, *self.findings[:40], f"{len(self.findings)} findings"])


async def trial(setup: str, folder: Path, *, seed: int, sagas: int, kills: int) -> Outcome:
    """Lay so many sagas into a log while trackers read it and are killed; compare at rest, and once more after a rebuild."""
    world = World(list(truths(seed, sagas)), seed=seed)
    outcome = Outcome(Counter(truth.state for truth in world.truths), sum(map(len, world.lying.values())))
    async with AsyncExitStack() as stack:
        log_url, stores = _servers(setup, folder, stack)
        log = await stack.enter_async_context(open_log(log_url))
        every = [Topic(name=name, partitions=n, settings=_FOREVER) for name, n in world.partitions.items()]
        await log.create_topics(every)
        laying = asyncio.create_task(_lay(log, world))
        outcome.kills = await _killed(log_url, stores[0], random.Random(seed), kills, laying)
        await laying
        for name, url in zip(("live", "rebuilt"), stores, strict=True):
            said = await _said(log, url, world.truths)
            outcome.findings += [f"{name}: {finding}" for finding in said]
    return outcome


_FOREVER = {"retention.ms": "-1"}
"""The truth lies years ago."""


def _servers(setup: str, folder: Path, stack: AsyncExitStack) -> tuple[str, tuple[str, str]]:
    """Where the log is, and two stores."""
    log_url = f"sqlite:///{folder}/log.db"
    if setup != "embedded":
        log_url = f"kafka://{stack.enter_context(KafkaServer()).bootstrap}"
    if setup == "kafka-postgres":
        url = stack.enter_context(PostgresServer()).url
        return log_url, (f"{url}?schema=live", f"{url}?schema=rebuilt")
    return log_url, (f"sqlite:///{folder}/live.db", f"sqlite:///{folder}/rebuilt.db")


async def _lay(log: Log, world: World) -> None:
    """Append all, then commit what groups have read: in between a tracker sees anything that may be seen."""
    producer = log.producer()
    try:
        records = world.records
        for first in range(0, len(records), _CHUNK):
            await producer.append(records[first : first + _CHUNK])
    finally:
        await producer.close()
    groups: dict[str, dict[TopicPartition, int]] = {}
    for (group, at), offset in world.around.committed.items():
        groups.setdefault(group, {})[at] = offset
    for group, offsets in sorted(groups.items()):
        await _commit(log, group, offsets)


async def _commit(log: Log, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    consumer = log.consumer(sorted({at.topic for at in offsets}), group=group)
    try:
        while not consumer.assignment >= offsets.keys():
            await consumer.poll(1, 0.05)
        await consumer.commit(offsets)
    finally:
        await consumer.close()


async def _killed(log_url: str, store_url: str, chance: random.Random, kills: int, laying: asyncio.Task[None]) -> int:
    """Trackers one after another, each killed at some moment; the last ones after all has been laid."""
    done = 0
    while done < kills or not laying.done():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.tracker.child", log_url, store_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdout is not None
        try:
            said = await asyncio.wait_for(child.stdout.readline(), 60)
            assert said == b"at work\n", f"the tracker ended by itself: {await child.wait()}"
            await asyncio.sleep(chance.uniform(*_LIVES))
            assert child.returncode is None, f"the tracker ended by itself: {child.returncode}"
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
        done += 1
    return done


async def _said(log: Log, store_url: str, true: Sequence[Truth]) -> list[str]:
    """What a tracker with this store says that is not true, once it has read and folded all."""
    store = make_tracker_store(store_url)
    await store.open()
    try:
        tracker = Tracker(log, store, GRAPH, Options(group=GROUP, keep_ms=2**53), now_ms=lambda: NOW_MS)
        running = asyncio.create_task(tracker.run())
        settled = asyncio.create_task(tracker.settled())
        try:
            await asyncio.wait({running, settled}, timeout=600, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            if not settled.done():
                return [f"the tracker did not come to rest, {tracker.behind}"]
            return await _compared(log, store, true)
        finally:
            for task in (settled, running):
                task.cancel()
            await asyncio.gather(settled, running, return_exceptions=True)
    finally:
        await store.close()


async def _compared(log: Log, store: TrackerStore, true: Sequence[Truth]) -> list[str]:
    around = Surroundings(NOW_MS, await store.committed(), await log.beginning_offsets(await store.progress()), NOW_MS)
    findings = []
    for first in range(0, len(true), 500):
        part = true[first : first + 500]
        names = [truth.saga for truth in part]
        seen, listed = await store.sightings(names), await store.summaries(names)
        for truth in part:
            findings += _different(truth, seen.get(truth.saga), listed.get(truth.saga), around)
    return findings


def _different(truth: Truth, seen: Any, listed: Any, around: Surroundings) -> list[str]:
    if seen is None or listed is None:
        return [f"{truth}: not there"]
    saga = fold(seen.seen, GRAPH, around)
    found = [f"{truth}: {said}" for said in differences(truth, saga)]
    if (listed.state, listed.reason) != (saga.state, saga.reason):
        found.append(f"{truth}: listed as {listed.state} ({listed.reason}), but it is {saga.state} ({saga.reason})")
    return found
