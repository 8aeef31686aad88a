"""How many sagas are how, how long they take, and how far they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from choreo.saga.filters import Compare
from choreo.saga.sighting import Sighting
from choreo.saga.store.port import TrackerStore

SHARES = (0.5, 0.95, 0.99)
SAMPLE = 500
"""A funnel is counted over so many sagas, the newest."""
_AT_ONCE = 100


class TypeStats(NamedTuple):
    """Of the sagas of one type: how many are in which state, and the durations (ms) of those that have ended.

    Attributes:
        p50_ms, p95_ms, p99_ms: None if none has ended.
    """

    type: str
    sagas: int
    states: Mapping[str, int]
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None


class Stats(NamedTuple):
    """All sagas in numbers."""

    sagas: int
    states: Mapping[str, int]
    types: tuple[TypeStats, ...]


class Reached(NamedTuple):
    """How many sagas have an event of a type."""

    type: str
    sagas: int


class Funnel(NamedTuple):
    """How many of the newest sagas of a type have come so far.

    Attributes:
        of: how many were looked at.
        steps: event types with the number of sagas that have such an event; those with few causes above them first.
    """

    type: str
    of: int
    steps: tuple[Reached, ...]


async def stats_of(store: TrackerStore) -> Stats:
    """Counts and durations."""
    counts = await store.counts()
    states: Counter[str] = Counter()
    by_type: dict[str, Counter[str]] = {}
    for count in counts:
        states[count.state] += count.sagas
        by_type.setdefault(count.type, Counter())[count.state] += count.sagas
    types = []
    for name, found in sorted(by_type.items(), key=lambda item: (-item[1].total(), item[0])):
        lasted: Sequence[int | None] = await store.durations(name, SHARES) or [None] * len(SHARES)
        types.append(TypeStats(name, found.total(), dict(found.most_common()), *lasted))
    return Stats(states.total(), dict(states.most_common()), tuple(types))


async def funnel_of(store: TrackerStore, type_name: str) -> Funnel:
    """How far the newest sagas of a type have come."""
    asked, found = Compare("type", "=", type_name), list[str]()
    after: str | None = None
    while len(found) < SAMPLE:
        page = await store.page(asked, limit=min(_AT_ONCE, SAMPLE - len(found)), after=after)
        found += [row.saga for row in page.rows]
        after = page.after
        if after is None:
            break
    reached: Counter[str] = Counter()
    depths: Counter[str] = Counter()
    for start in range(0, len(found), _AT_ONCE):
        for sightings in (await store.sightings(found[start : start + _AT_ONCE])).values():
            first_depths = _depths(sightings.seen)
            reached.update(first_depths.keys())
            depths.update(first_depths)
    steps = sorted(reached.items(), key=lambda item: (depths[item[0]] / item[1], -item[1], item[0]))
    return Funnel(type_name, len(found), tuple(Reached(*step) for step in steps))


def _depths(seen: Sequence[Sighting]) -> dict[str, int]:
    """How many causes stand above the first event of each type."""
    causes = {one.event_id: one.causation_id for one in seen if one.kind == "event"}
    found: dict[str, int] = {}
    depth_of: dict[str, int] = {}
    for one in seen:
        if one.kind != "event":
            continue
        above: list[str] = []
        at: str | None = one.event_id
        while at is not None and at in causes and at not in depth_of and at not in above[-_AT_ONCE:]:
            above.append(at)
            at = causes[at]
        depth = depth_of.get(at or "", -1)
        for id_ in reversed(above):
            depth += 1
            depth_of[id_] = depth
        found[one.type_name] = min(found.get(one.type_name, depth), depth)
    return found
