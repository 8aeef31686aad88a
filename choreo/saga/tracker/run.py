"""The tracker at work: reads the log, folds what has changed, and keeps both up to date."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import structlog

from choreo.errors import ConfigurationError, FencedError, LogError, StoreUnavailableError
from choreo.graph import Graph
from choreo.log.port import Log, TopicPartition
from choreo.log.reader import partitions_of
from choreo.observe import saga_metrics
from choreo.saga.store.port import TrackerStore
from choreo.saga.tracker.commits import Commits, read_by
from choreo.saga.tracker.counting import show_sagas
from choreo.saga.tracker.folding import Folder
from choreo.saga.tracker.intake import Intake, Searchable

_log = structlog.get_logger("choreo.tracker")
_IDLE = 0.1
"""Seconds after which what other tasks have found is looked at, where nothing is read."""
_ASK, _ALL = 0.5, 10.0
"""Seconds between two questions for commits that something waits for, and for all."""
_LOOK = 2.0
"""Seconds between two looks at topics, and at how far behind it is."""
_CLEAN, _BITE = 60.0, 200
"""Seconds between two clean-ups, and how many sagas are forgotten at a time."""
_FAR = 20_000
"""Records behind, from which on reading comes first: a saga is folded once then, when all of it has been read."""
_GATHER, _GATHER_FAR = 0.05, 0.3
"""Seconds in which records are gathered for one transaction."""
_PART = 1_000
"""Sagas that are folded at a time."""
_MANY = 100_000
"""Sagas that may wait to be folded while a log is caught up with."""


class Behind(NamedTuple):
    """How far behind the tracker is.

    Attributes:
        records: that are in the log and not read.
        seconds: how old the oldest partition's last record is that was read; None if nothing was read of one.
        reached_ms: all that was written before has been read.
        unfolded: sagas that have changed and are not folded yet; by this instance.
    """

    records: int
    seconds: float | None
    reached_ms: int
    unfolded: int

    def __str__(self) -> str:
        said = f"{self.records:,} records behind"
        if self.records and self.seconds is not None:
            said += f", {self.seconds:,.0f} s"
        return f"{said}, {self.unfolded:,} sagas to fold" if self.unfolded else said


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a tracker works.

    Attributes:
        group: its consumer group; instances of one group and store share the work.
        keep_ms: how long a saga is kept after its last change.
    """

    group: str = "choreo-tracker"
    keep_ms: int = 30 * 86_400_000


class Tracker:
    """One instance of the tracker. It writes nothing to the log.

    Args:
        store: open.
        searchable: finds the values of payload fields that are declared searchable.
        now_ms: the time.

    Attributes:
        behind: how far behind it is; None until it has looked.
    """

    def __init__(
        self,
        log: Log,
        store: TrackerStore,
        graph: Graph,
        options: Options | None = None,
        *,
        searchable: Searchable | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._source, self._store, self._graph = log, store, graph
        self._options = options or Options()
        self._searchable, self._now_ms = searchable, now_ms
        self._folder = Folder(store, graph)
        self._commits = Commits(log)
        self._touched: dict[str, None] = {}
        self._topics: dict[str, int] = {}
        self._reads: Intake | None = None
        self._is_settled = asyncio.Event()
        self._leaves_some = False
        self._ends: tuple[int, dict[TopicPartition, int]] = 0, {}
        self.behind: Behind | None = None

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            ChoreoError: the log or the store cannot be used.
        """
        while True:
            try:
                await self._work()
            except FencedError as error:  # another instance reads on, or the store was rebuilt: start from what it says
                _log.warning("starting again from the store", reason=str(error))

    async def _work(self) -> None:
        self._touched.clear()
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._look()
            await self._ask(every=True)
            beside = (self._asking(), self._looking(), self._cleaning())
            tasks = [asyncio.create_task(work) for work in (self._reading(), *beside)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until all is read that was in the log when this was called, and folded.

        Raises:
            ConfigurationError: the log has no topic of this choreography.
        """
        known = set(self._graph.topics) & (await self._source.topics()).keys()
        if not known:
            raise ConfigurationError(
                f"the log {self._source.url} has no topic of these services", remedy="name the right one: CHOREO_LOG"
            )
        ends = await self._source.end_offsets(await partitions_of(self._source, sorted(known)))
        while True:
            self._is_settled.clear()
            await self._is_settled.wait()
            there = await self._store.progress()
            read = {at: there[at].next if at in there else 0 for at in ends}
            firsts = await self._source.beginning_offsets([at for at in ends if read[at] < ends[at]])
            if all(read[at] >= end or firsts[at] >= end for at, end in ends.items()):
                await self._look()
                await self._ask(every=True)
                self._is_settled.clear()
                await self._is_settled.wait()
                await self._look()
                return

    # --- reading and folding --------------------------------------------------------------------------------------

    async def _reading(self) -> None:
        while True:
            if not self._topics:
                await asyncio.sleep(_LOOK)
                continue
            topics = dict(self._topics)
            self._reads = Intake(self._source, self._store, sorted(topics), self._options.group, self._searchable)
            try:
                await self._recall()
                while topics == self._topics:
                    await self._turn(self._reads)
            finally:
                reads, self._reads = self._reads, None
                await _quietly(reads.close())

    async def _turn(self, reads: Intake) -> None:
        more = self.behind is not None and self.behind.records > _FAR
        sagas = await reads.read(0.001 if self._touched else _IDLE, _GATHER_FAR if more else _GATHER)
        self._touch(sagas)
        if more and sagas and len(self._touched) < _MANY:
            return
        await reads.written()
        settled, reads.settled = reads.settled, []
        self._touch(settled)
        await self._fold(_MANY // 2 if more else _PART, live=not more)
        if self._leaves_some and not self._touched:
            await self._recall()
        if not more and not sagas and not self._touched:
            self._is_settled.set()

    async def _recall(self) -> None:
        """Fold also what an instance that is gone has left; of very many some now, and the rest after that."""
        marked = await self._store.marked(_MANY)
        self._leaves_some = len(marked) == _MANY
        self._touch(marked)

    def _touch(self, sagas: Iterable[str]) -> None:
        self._touched.update(dict.fromkeys(sagas))

    async def _fold(self, number: int, *, live: bool) -> None:
        """Fold the sagas that have waited longest; side by side in the store, they are found quicker."""
        chosen = sorted(islice(self._touched, number))
        for saga in chosen:
            del self._touched[saga]
        for first in range(0, len(chosen), _PART):
            await self._folder.fold(chosen[first : first + _PART], self._now_ms(), live=live)

    # --- beside it ------------------------------------------------------------------------------------------------

    async def _asking(self) -> None:
        asked = time.monotonic()
        while True:
            await asyncio.sleep(_ASK)
            every = time.monotonic() > asked + _ALL
            asked = time.monotonic() if every else asked
            await self._ask(every=every)
            if every:
                await self.show()

    async def show(self) -> None:
        """Bring up to date what `/metrics` says of sagas."""
        await show_sagas(self._store, self._graph, self._folder.around(self._now_ms()))

    async def _ask(self, *, every: bool) -> None:
        if every:
            wanted = read_by(self._graph, self._partitions())
        else:
            wanted = await self._store.waited_for()
        committed = await self._commits.of(wanted)
        self._folder.note(committed)
        self._touch(await self._store.advance(committed, self._now_ms()))
        self._touch(await self._store.due(self._folder.reached_ms, _MANY))

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(name, number) for name, count in self._topics.items() for number in range(count)]

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self._look()
            except LogError as error:
                _log.warning("the log does not say how far it goes", reason=str(error))

    async def _look(self) -> None:
        """What topics there are, what they keep, and how far they go."""
        there, asked_ms = await self._source.topics(), self._now_ms()
        self._topics = {name: there[name].partitions for name in self._graph.topics if name in there}
        partitions = self._partitions()
        ends = await self._source.end_offsets(partitions)
        firsts = self._folder.beginnings = await self._source.beginning_offsets(partitions)
        read = await self._store.progress()
        done = {at: max(read[at].next if at in read else 0, first) for at, first in firsts.items()}
        late = {at: end - done[at] for at, end in ends.items() if end > done[at]}
        oldest = min((read[at].at_ms if at in read else 0 for at in late), default=asked_ms)
        seconds = None if late and not oldest else max(0.0, (asked_ms - oldest) / 1000)
        self._folder.reached_ms = max(self._folder.reached_ms, self._reached(asked_ms, ends, done))
        self.behind = Behind(sum(late.values()), seconds, self._folder.reached_ms, len(self._touched))
        lag = dict.fromkeys(self._topics, 0.0)
        for at in late:
            since = read[at].at_ms if at in read and read[at].at_ms else asked_ms
            lag[at.topic] = max(lag[at.topic], (asked_ms - since) / 1000)
        saga_metrics.set_lag(lag)
        await self._store.note("behind", json.dumps({**self.behind._asdict(), "at_ms": asked_ms}))

    def _reached(self, asked_ms: int, ends: dict[TopicPartition, int], done: Mapping[TopicPartition, int]) -> int:
        """The last look of which it is known that all has been read that was in the log by then.

        The times of records would not tell: they are their producers' clocks, of which one may go wrong by hours.
        """
        seen_ms, then = self._ends
        if any(done.get(at, end) < min(end, ends.get(at, end)) for at, end in then.items()):
            return 0
        self._ends = asked_ms, ends
        return asked_ms if all(done[at] >= end for at, end in ends.items()) else seen_ms

    async def _cleaning(self) -> None:
        while True:
            await asyncio.sleep(_CLEAN)
            now_ms = self._now_ms()
            await self._store.thin(now_ms)
            # Of a log that is caught up with, more of an old saga may still be read.
            before_ms = min(now_ms, self._folder.reached_ms) - self._options.keep_ms
            forgotten = _BITE
            while forgotten == _BITE:  # in small bites: others wait for the store too
                forgotten = await self._store.expire(before_ms, _BITE)
                await asyncio.sleep(0.05)
            if not self._touched:
                await self._recall()


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """What goes wrong while ending is told, and hides nothing that went wrong before."""
    try:
        await work
    except (FencedError, StoreUnavailableError, LogError) as error:
        _log.warning("not all that was read could be written, it is read again", reason=str(error))
