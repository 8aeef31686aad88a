"""Rebuilding the tracker's store from the log, beside the one that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

import structlog

from choreo.errors import StoreMissingError
from choreo.graph import Graph
from choreo.log import Log
from choreo.log.port import TopicPartition
from choreo.runtime.settings import Settings
from choreo.saga.store import TrackerStore, make_tracker_store
from choreo.saga.tracker import opened
from choreo.service import Service

_log = structlog.get_logger("choreo.tracker")


async def rebuild(
    settings: Settings | None,
    declared: Sequence[Service] | Graph,
    *,
    searchable: Iterable[str] = (),
    log: Log | None = None,
) -> int:
    """Build the tracker's store anew from the log, and put it in the place of the one there is; how many sagas it has.

    That one is served until then; a tracker that reads into it goes on from the new one. What groups had committed when, which
    no log tells, is taken over.

    Raises:
        ChoreoError: the log or the store cannot be used; the store is as it was.
    """
    settings = settings or Settings()
    live = make_tracker_store(settings.tracker_store)
    new = live.beside()
    await new.open()
    try:
        await _remember(live, new)
        group = f"choreo-tracker-rebuild-{uuid4().hex[:8]}"
        async with opened(settings, declared, group=group, searchable=searchable, log=log, store=new) as tracker:
            working = asyncio.create_task(tracker.run())
            settling = asyncio.create_task(tracker.settled())
            await asyncio.wait({working, settling}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                settling.cancel()
                await working
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            await settling  # or it could not be found out whether all was read
        sagas = sum(count.sagas for count in await new.counts())
        await live.replace(new)
    finally:
        await new.close()
    _log.info("the tracker's store is rebuilt", sagas=sagas)
    return sagas


async def _remember(live: TrackerStore, new: TrackerStore) -> None:
    """Take over what groups had committed when."""
    try:
        await live.open(reads_only=True)
    except StoreMissingError:
        return
    try:
        by_time: dict[int, dict[tuple[str, TopicPartition], int]] = {}
        for group, at in await live.committed():
            for commit in await live.commits(group, at):
                by_time.setdefault(commit.at_ms, {})[group, at] = commit.offset
    finally:
        await live.close()
    for at_ms, committed in sorted(by_time.items()):
        await new.advance(committed, at_ms)
