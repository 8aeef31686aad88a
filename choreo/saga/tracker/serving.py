"""Running the tracker as a process of its own: it waits out trouble that passes, and answers how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from choreo.graph import Graph
from choreo.runtime.patience import Patient, until_stopped
from choreo.runtime.run import settle_garbage_collector
from choreo.runtime.settings import Settings
from choreo.saga.tracker import opened
from choreo.saga.tracker.run import Tracker

_log = structlog.get_logger("choreo.tracker")
_UNDER_WAY = 16_000
"""Records that are looked at and written at once."""
_FAR_S = 30.0
"""Seconds behind from which on nobody should count on the tracker."""


class _Tracking(Patient):
    """What `serve` does just now."""

    def __init__(
        self, stop: asyncio.Event, settings: Settings, graph: Graph, group: str, searchable: Sequence[str]
    ) -> None:
        super().__init__(stop, _log, "the tracker is starting")
        self._settings, self._graph, self._group, self._searchable = settings, graph, group, searchable
        self._tracker: Tracker | None = None

    async def work(self) -> None:
        async with opened(self._settings, self._graph, group=self._group, searchable=self._searchable) as tracker:
            self._tracker, self.is_begun = tracker, True
            settle_garbage_collector(_UNDER_WAY)
            working, stopping = asyncio.create_task(tracker.run()), asyncio.create_task(self.stop.wait())
            try:
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    await working
            finally:
                stopping.cancel()
                working.cancel()
                await asyncio.wait({working})

    async def live(self) -> list[str]:
        return []

    async def ready(self) -> list[str]:
        if self.stop.is_set():
            return ["the tracker is stopping"]
        if not self.is_begun or self._tracker is None:
            return [self.waits_for]
        behind = self._tracker.behind
        if behind is None:
            return ["the tracker has not looked at the log yet"]
        far = behind.records and (behind.seconds is None or behind.seconds > _FAR_S)
        return [f"the tracker is {behind}"] if far else []


async def serve(
    settings: Settings, graph: Graph, *, stop: asyncio.Event, group: str, searchable: Sequence[str] = ()
) -> None:
    """Run the tracker until `stop` is set, with a health port if the settings name one.

    Raises:
        ChoreoError: it cannot start, or cannot go on.
    """
    await until_stopped(_Tracking(stop, settings, graph, group, searchable), settings)
