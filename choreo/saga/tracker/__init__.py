"""The tracker: rebuilds every saga from the log, and keeps it up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from choreo.choreography import Choreography
from choreo.durations import seconds
from choreo.errors import ChoreoError, ConfigurationError
from choreo.graph import Graph
from choreo.log import Log, open_log
from choreo.runtime.settings import Settings
from choreo.saga.store import TrackerStore, make_tracker_store
from choreo.saga.tracker.run import Behind, Options, Tracker
from choreo.saga.tracker.searchable import Fields
from choreo.service import Service
from choreo.wire import Codec, open_registry

__all__ = ["Behind", "Options", "Tracker", "graph_of", "opened", "tracking"]

GROUP = "choreo-tracker"


def graph_of(declared: Sequence[Service] | Graph) -> Graph:
    """The graph of services."""
    return declared if isinstance(declared, Graph) else Choreography.of(declared).graph


@asynccontextmanager
async def tracking(
    settings: Settings | None,
    declared: Sequence[Service] | Graph,
    *,
    group: str = GROUP,
    searchable: Iterable[str] = (),
    log: Log | None = None,
    store: TrackerStore | None = None,
) -> AsyncIterator[Tracker]:
    """A tracker at work in this process, until the block ends.

    Args:
        declared: the services whose sagas are tracked, or their graph.
        group: its consumer group.
        searchable: payload fields that filters may name (`data.NAME`), each as `EventType.field`.
        log, store: to use instead of opening those of the settings.

    Raises:
        ChoreoError: the log or the store cannot be used.
    """
    async with opened(settings, declared, group=group, searchable=searchable, log=log, store=store) as tracker:
        running = asyncio.create_task(tracker.run())
        try:
            yield tracker
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@asynccontextmanager
async def opened(
    settings: Settings | None,
    declared: Sequence[Service] | Graph,
    *,
    group: str = GROUP,
    searchable: Iterable[str] = (),
    log: Log | None = None,
    store: TrackerStore | None = None,
) -> AsyncIterator[Tracker]:
    """As `tracking`, but whoever asked calls `Tracker.run`."""
    settings = settings or Settings()
    graph = graph_of(declared)
    async with AsyncExitStack() as stack:
        if log is None:
            log = await stack.enter_async_context(open_log(settings.log, settings.kafka))
        if store is None:
            store = make_tracker_store(settings.tracker_store)
            await store.open()
            stack.push_async_callback(store.close)
        fields = None
        if names := list(searchable):
            registry = open_registry(settings.registry)
            stack.push_async_callback(registry.aclose)
            fields = Fields(names, graph, Codec(registry))
        keep_ms = round(seconds(_duration(settings.tracker_keep)) * 1000)
        yield Tracker(log, store, graph, Options(group=group, keep_ms=keep_ms), searchable=fields)


def _duration(said: str) -> str:
    try:
        seconds(said)
    except ChoreoError as error:
        raise ConfigurationError(f"CHOREO_TRACKER_KEEP is {said!r}", why=str(error), remedy="write 30d") from error
    return said
