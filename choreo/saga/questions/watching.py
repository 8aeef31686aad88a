"""What changes in sagas, as it changes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

from choreo.errors import ConfigurationError
from choreo.saga.filters import And, Compare, Filter, at_moment
from choreo.saga.store.port import Summary, TrackerStore

INTERVAL = 0.3
_SLACK_MS = 60_000
"""Something that is noticed now may have happened earlier: clocks differ, and a tracker may be behind."""
_LONGEST_ID = 16
_KEPT, _PAGE = 2000, 200
"""So many sagas that have not ended are looked at again for changes that no event announces; the newest."""


class Change(NamedTuple):
    """A saga as it is now.

    Attributes:
        id: names this place in the stream; whoever resumes from it misses no event, and may see a change twice.
        new: whether the stream sees this saga for the first time.
    """

    id: str
    summary: Summary
    new: bool


def check_place(after: str) -> None:
    """Whether one can resume from there.

    Raises:
        ConfigurationError: no change has this id.
    """
    if after and not (after.isascii() and after.isdecimal() and len(after) < _LONGEST_ID):
        raise ConfigurationError(f"no change has the id {after[:80]!r}", remedy="take the id of the last one that came")


async def watch(
    store: TrackerStore,
    fits: Filter,
    *,
    now: Callable[[], int],
    after: str = "",
    interval: float = INTERVAL,
) -> AsyncGenerator[Change]:
    """The changes of sagas that fit, without an end: each time a saga's summary is another one.

    Args:
        fits: a saga that has fitted and fits no more is told once more.
        after: the `Change.id` to resume from; unless given, from now on.

    Raises:
        ConfigurationError: no change has the id `after`.
    """
    check_place(after)
    since = int(after) if after else now()
    known: OrderedDict[str, Summary] = OrderedDict()
    told = bool(after)  # otherwise what there is at the start is no change
    while True:
        begun = now()
        for summary in sorted(await _changed(store, fits, since - _SLACK_MS, known, begun), key=_updated):
            before = known.get(summary.saga)
            _remember(known, summary)
            if told and before != summary:
                yield Change(str(since), summary, before is None)
        told, since = True, begun
        await asyncio.sleep(interval)


def _updated(summary: Summary) -> int:
    return summary.updated_ms


def _remember(known: OrderedDict[str, Summary], summary: Summary) -> None:
    known[summary.saga] = summary
    known.move_to_end(summary.saga)
    while len(known) > _KEPT:
        known.popitem(last=False)


async def _changed(
    store: TrackerStore, fits: Filter, since_ms: int, known: OrderedDict[str, Summary], now_ms: int
) -> list[Summary]:
    recent: Filter = And((at_moment(fits, now_ms), Compare("updated", ">=", since_ms)))
    rows: list[Summary] = []
    after: str | None = None
    while len(rows) < _KEPT:
        page = await store.page(recent, limit=_PAGE, after=after)
        rows += page.rows
        after = page.after
        if after is None:
            break
    there = {row.saga for row in rows}
    quiet = [saga for saga, summary in known.items() if saga not in there and summary.ended_ms is None]
    rows += (await store.summaries(quiet)).values() if quiet else ()
    return rows
