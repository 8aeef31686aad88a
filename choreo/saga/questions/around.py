"""What the fold has to know beside a saga's own records, now or at a moment in the past."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from choreo.errors import LogError
from choreo.graph import Graph
from choreo.log.port import Log, TopicPartition
from choreo.saga.model import Surroundings
from choreo.saga.sighting import Sighting
from choreo.saga.store.port import TrackerStore

_FRESH_MS = 10_000
"""So long what the log keeps is not asked again."""


class Around:
    """Answers from the tracker's store, and asks the log only for where its partitions begin."""

    def __init__(self, store: TrackerStore, log: Log, graph: Graph, now: Callable[[], int]) -> None:
        self._store, self._log, self._graph, self._now = store, log, graph, now
        self._beginnings: dict[TopicPartition, int] = {}
        self._asked_ms = 0

    async def now(self) -> Surroundings:
        """As it is now."""
        return Surroundings(self._now(), await self._store.committed(), await self._kept(), await self._reached_ms())

    async def then(self, moment_ms: int, seen: Iterable[Sighting]) -> tuple[Surroundings, Sequence[str]]:
        """As it was at a moment, for the records of one saga; and what is not known about that, in words."""
        committed: dict[tuple[str, TopicPartition], int] = {}
        unknown: set[str] = set()
        now = await self._store.committed()
        for at in {one.place.of for one in seen}:
            for group in self._graph.services:
                if (group, at) not in now:
                    continue
                history = await self._store.commits(group, at, moment_ms)
                if history and history[0].at_ms <= moment_ms:
                    committed[group, at] = history[0].offset
                else:  # the best guess: whoever is done now was quick
                    committed[group, at] = now[group, at]
                    unknown.add(group)
        reached = min(moment_ms, await self._reached_ms())
        notes = (
            [f"what {', '.join(sorted(unknown))} had read by then is not known: shown as it is now"] if unknown else []
        )
        return Surroundings(moment_ms, committed, await self._kept(), reached), notes

    async def _kept(self) -> dict[TopicPartition, int]:
        if not self._beginnings or self._now() - self._asked_ms > _FRESH_MS:
            try:
                self._beginnings = await self._log.beginning_offsets(await self._store.progress())
                self._asked_ms = self._now()
            except LogError:  # questions are answered without the log too
                self._beginnings = self._beginnings or {}
        return self._beginnings

    async def _reached_ms(self) -> int:
        """Everything older than this has been read, as the tracker says."""
        behind = json.loads((await self._store.notes()).get("behind", "{}"))
        return int(behind.get("reached_ms", 0))
