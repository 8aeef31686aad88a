"""Running the tracker as a process of its own: it waits out trouble that passes, and answers how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog

from choreo.errors import AccessError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError
from choreo.graph import Graph
from choreo.runtime.run import settle_garbage_collector
from choreo.runtime.settings import Settings
from choreo.saga.tracker import opened
from choreo.saga.tracker.run import Tracker

_log = structlog.get_logger("choreo.tracker")
_PASSING = (AccessError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError)
_FIRST_DELAY, _MAX_DELAY = 0.5, 15.0
_UNDER_WAY = 16_000
"""Records that are looked at and written at once."""
_FAR_S = 30.0
"""Seconds behind from which on nobody should count on the tracker."""


class Serving:
    """What `serve` does just now: checks for a health port."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.tracker: Tracker | None = None
        self._stop = stop
        self._waits_for = "the tracker is starting"

    async def live(self) -> list[str]:
        """That the loop answers says all."""
        return []

    async def ready(self) -> list[str]:
        """Why nobody should count on it just now."""
        if self._stop.is_set():
            return ["the tracker is stopping"]
        if self.tracker is None:
            return [self._waits_for]
        behind = self.tracker.behind
        if behind is None:
            return ["the tracker has not looked at the log yet"]
        far = behind.records and (behind.seconds is None or behind.seconds > _FAR_S)
        return [f"the tracker is {behind}"] if far else []

    async def run(self, settings: Settings, graph: Graph, group: str, searchable: Sequence[str]) -> None:
        """Track until `stop` is set; where waiting can help it waits, says for what, and tries again."""
        delay = _FIRST_DELAY
        while True:
            try:
                async with opened(settings, graph, group=group, searchable=searchable) as tracker:
                    self.tracker = tracker
                    settle_garbage_collector(_UNDER_WAY)
                    await self._until_stopped(tracker)
                    return
            except _PASSING as error:
                if self._stop.is_set():
                    raise
                began, self.tracker, self._waits_for = self.tracker is not None, None, str(error)
                what = "cannot go on, starting again" if began else "cannot start yet, trying again"
                _log.error(what, reason=str(error), delay=delay)
            await asyncio.sleep(delay)
            delay = min(_MAX_DELAY, delay * 2)

    async def _until_stopped(self, tracker: Tracker) -> None:
        working, stopping = asyncio.create_task(tracker.run()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        finally:
            stopping.cancel()
            working.cancel()
            await asyncio.wait({working})


async def serve(
    settings: Settings, graph: Graph, *, stop: asyncio.Event, group: str, searchable: Sequence[str] = ()
) -> None:
    """Run the tracker until `stop` is set, with a health port if the settings name one.

    Raises:
        ChoreoError: it cannot start, or cannot go on.
    """
    serving = Serving(stop)
    async with AsyncExitStack() as stack:
        if settings.health_port is not None:
            from choreo.observe.health import health_port  # a web server, only where it is asked for

            port = health_port(settings.health_host, settings.health_port, live=serving.live, ready=serving.ready)
            await stack.enter_async_context(port)
        doing = asyncio.create_task(serving.run(settings, graph, group, searchable))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.tracker is None and not doing.done():
                doing.cancel()  # it waits for something that may never come
                await asyncio.wait({doing})
            if not doing.cancelled():
                await doing
        finally:
            stopping.cancel()
            doing.cancel()
