"""`Questions`: everything that can be asked about sagas, over a tracker's store and the log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

from choreo.dlq.letters import Place
from choreo.errors import ConfigurationError, UnknownSagaError
from choreo.graph import Graph
from choreo.log.port import Log
from choreo.saga.filter_text import parse
from choreo.saga.filters import at_moment
from choreo.saga.fold import fold
from choreo.saga.model import Saga, SagaEvent
from choreo.saga.questions import groups, records, watching
from choreo.saga.questions.around import Around
from choreo.saga.questions.naming import find
from choreo.saga.questions.past import seen_until
from choreo.saga.questions.stats import Funnel, Stats, funnel_of, stats_of
from choreo.saga.store.port import Page, TrackerStore
from choreo.saga.verify import Violation, verify
from choreo.saga.views.lines import moment
from choreo.saga.why import Group, why
from choreo.wire import Registry

MOST = 500
"""A page has at most so many sagas."""


class Shown(NamedTuple):
    """A saga that was asked for.

    Attributes:
        now_ms: the moment it is shown at.
        as_of: whether that is a moment in the past that was asked for.
        others: further sagas that could have been meant, newest first.
        notes: what is not known, in words.
    """

    saga: Saga
    now_ms: int
    as_of: bool
    others: tuple[str, ...]
    notes: tuple[str, ...]


class Verified(NamedTuple):
    """What checking many sagas has found.

    Attributes:
        checked: how many were looked at.
        broken: those in which a law was broken, with what happened.
    """

    checked: int
    broken: tuple[tuple[Saga, tuple[Violation, ...]], ...]


class Questions:
    """What can be asked.

    Sagas go by their correlation id or the beginning of it, by their business key, or by the id of one of their events or
    dead letters.

    Args:
        store: a tracker's, open.
        log: open; asked for the content of records, and how groups are.
        graph: the declared choreography.
        now: the clock, ms since the epoch.
    """

    def __init__(
        self,
        store: TrackerStore,
        log: Log,
        registry: Registry,
        graph: Graph,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.store, self.log, self.registry, self.graph, self.now = store, log, registry, graph, now
        self._around = Around(store, log, graph, now)

    async def list(self, asked: str = "", *, limit: int = 50, after: str | None = None) -> Page:
        """Sagas that fit a filter, newest first.

        Raises:
            FilterError: the filter cannot be read.
            ConfigurationError: `after` was never given out, or too many are wanted at once.
        """
        if not 1 <= limit <= MOST:
            raise ConfigurationError(f"a page of {limit} sagas cannot be had", remedy=f"ask for 1 to {MOST} at once")
        return await self.store.page(at_moment(parse(asked), self.now()), limit=limit, after=after)

    async def show(self, name: str, *, as_of: int | None = None) -> Shown:
        """A saga, as it is or as it was at a moment (ms).

        Raises:
            UnknownSagaError: none has this name, or it had not begun.
            ConfigurationError: the moment is in the future.
        """
        if as_of is not None and as_of > self.now():
            raise ConfigurationError(
                f"{moment(as_of)} is in the future", remedy="ask for a moment that has been, or for now"
            )
        found = await find(self.store, name)
        notes: Sequence[str] = ()
        seen = (await self.store.sightings([found.saga]))[found.saga].seen
        if as_of is None:
            around = await self._around.now()
        else:
            around, notes = await self._around.then(as_of, seen)
            seen = seen_until(seen, as_of)
            if not seen:
                raise UnknownSagaError(f"saga {found.saga} had not begun then", remedy="ask for a later moment")
        saga = fold(seen, self.graph, around)
        return Shown(saga, around.now_ms, as_of is not None, found.others, tuple(notes))

    async def why(self, name: str, *, as_of: int | None = None) -> tuple[Shown, Sequence[str]]:
        """A saga, and in plain sentences why it is as it is: what it waits for, who owes it, and what to do.

        Raises:
            UnknownSagaError: none has this name, or it had not begun.
        """
        shown = await self.show(name, as_of=as_of)
        alive = {} if shown.as_of else await self.groups(shown.saga)  # how groups were then, nobody knows
        return shown, why(shown.saga, alive)

    async def groups(self, saga: Saga) -> dict[str, Group]:
        """How the groups are that owe something in this saga."""
        owing = {duty.handler for duty in saga.duties if duty.status in _OPEN}
        owing |= {expected.handler for expected in saga.expected if expected.handler}
        services = sorted({self.graph.handler[id_].service for id_ in owing if id_ in self.graph.handler})
        return await groups.health(self.log, self.store, self.graph, services)

    async def verify(self, name: str) -> tuple[Saga, Sequence[Violation]]:
        """A saga, and the laws that were broken in it.

        Raises:
            UnknownSagaError: none has this name.
        """
        saga = (await self.show(name)).saga
        return saga, verify(saga)

    async def verify_all(self, asked: str = "", *, limit: int) -> Verified:
        """The newest sagas that fit a filter, checked: how many, and those in which a law was broken.

        Raises:
            FilterError: the filter cannot be read.
        """
        sagas = await self.sagas(asked, limit=limit)
        return Verified(len(sagas), tuple((saga, found) for saga in sagas if (found := tuple(verify(saga)))))

    async def record(self, name: str, event: str) -> tuple[SagaEvent, tuple[records.Told, ...]]:
        """One event of a saga, and what its records say (more than one if it was published again).

        Args:
            event: its id or the end or beginning of it, or its type if there is one of it.

        Raises:
            UnknownSagaError: the saga has no such event, or several.
        """
        shown = await self.show(name)
        chosen = _chosen(shown.saga, event)
        return chosen, tuple([await self.tell(place) for place in chosen.places])

    async def tell(self, place: Place) -> records.Told:
        """What the record at a place says."""
        return await records.tell(self.log, self.registry, place)

    async def stats(self) -> Stats:
        """Counts by state and type, and durations."""
        return await stats_of(self.store)

    async def funnel(self, type_name: str) -> Funnel:
        """How far the newest sagas of a type have come.

        Raises:
            UnknownSagaError: no saga begins with it.
        """
        found = await funnel_of(self.store, type_name)
        if not found.of:
            remedy = "`choreo saga stats` names the types of first events"
            raise UnknownSagaError(f"no saga begins with {type_name!r}", remedy=remedy)
        return found

    def watch(
        self, asked: str = "", *, after: str = "", interval: float = watching.INTERVAL
    ) -> AsyncGenerator[watching.Change]:
        """The changes of sagas that fit a filter, without an end; `after` is the `Change.id` to resume from.

        Raises:
            FilterError: the filter cannot be read.
        """
        return watching.watch(self.store, parse(asked), now=self.now, after=after, interval=interval)

    async def sagas(self, asked: str, *, limit: int) -> Sequence[Saga]:
        """The newest sagas that fit a filter, each as it is now: for exports and checks of many.

        Raises:
            FilterError: the filter cannot be read.
        """
        fits, after = at_moment(parse(asked), self.now()), None
        found: deque[Saga] = deque()
        around = await self._around.now()
        while len(found) < limit:
            page = await self.store.page(fits, limit=min(MOST, limit - len(found)), after=after)
            seen = await self.store.sightings([row.saga for row in page.rows])
            found.extend(fold(seen[row.saga].seen, self.graph, around) for row in page.rows if row.saga in seen)
            after = page.after
            if after is None:
                break
        return tuple(found)


_OPEN = frozenset({"pending", "retrying", "gathering", "armed", "dead"})


def _chosen(saga: Saga, name: str) -> SagaEvent:
    for fits in (_is(name), _is_part(name)):
        found = [event for event in saga.events if fits(event)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(event.id for event in found[:5])
            raise UnknownSagaError(
                f"{len(found)} events of the saga are {name!r}", why=some, remedy="name one by its id"
            )
    types = ", ".join(dict.fromkeys(event.type for event in saga.events[:20]))
    raise UnknownSagaError(f"the saga has no event {name!r}", remedy=f"name an id or one of these types: {types}")


def _is(name: str) -> Callable[[SagaEvent], bool]:
    return lambda event: name in {event.id, event.type, *map(str, event.places)}


def _is_part(name: str) -> Callable[[SagaEvent], bool]:
    return lambda event: event.id.startswith(name) or event.id.endswith(name)
