"""One search for a saga in which given events come: backwards from each to events from outside, by every way there is.

A call of a handler emits one of the events that exclude each other, and an event comes by one topic; what was chosen is
undone where it leads nowhere. There may be very many ways, so a search gives up after a number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from choreo.check.finding import Path
from choreo.check.ways import Way, choice, fires_once

DEPTH = 100
"""Events in a row after which it gives up."""

Meet: TypeAlias = Callable[[str, str], bool]
Number: TypeAlias = "tuple[int, ...]"


class Goal(NamedTuple):
    """An event that is to come: without any of those to avoid among its causes, and emitted `by` a handler if that matters."""

    event: str
    avoid: frozenset[str] = frozenset()
    by: str = ""


class GaveUpError(Exception):
    """Too many steps."""


class _Instance(NamedTuple):
    """One event of a saga: what it is, which call emitted it (None: it came from outside), and which of several there."""

    event: str
    call: int | None
    number: Number


class _Call(NamedTuple):
    """One call of a handler in a saga, with the events that caused it."""

    handler: str
    causes: tuple[int, ...]


class Search:
    """One search. Instances and calls go by their numbers, and are never forgotten; what is chosen is undone.

    Args:
        ways: those that may lead to an event.
        starts: the events that come from outside.
        may_meet: whether two of these can belong to one saga.
        limit: how many steps it may take.

    Attributes:
        steps: how many it has taken.
    """

    def __init__(self, ways: Callable[[str], list[Way]], starts: frozenset[str], may_meet: Meet, limit: int) -> None:
        self.steps = 0
        self._ways, self._starts, self._may_meet, self._limit = ways, starts, may_meet, limit
        self._instances: dict[_Instance, int] = {}
        self._calls: dict[_Call, int] = {}
        self._behind: list[frozenset[str]] = []
        """By instance: the events that led to it."""
        self._there: dict[str, int] = {}
        self._chosen: dict[int | str, tuple[int, str]] = {}
        self._topics: dict[int, frozenset[str]] = {}
        self._begun: list[str] = []

    def paths(self, goals: Sequence[Goal]) -> tuple[Path, ...] | None:
        """A path to each of the goals in one saga; None if there is none.

        Raises:
            GaveUpError: it took too many steps.
        """
        for found in self._all(goals, frozenset(), ()):
            drawn = _Drawn(list(self._instances), list(self._calls))
            return tuple(drawn.path(instance) for instance in found)
        return None

    def _all(self, goals: Sequence[Goal], above: frozenset[str], number: Number) -> Iterator[tuple[int, ...]]:
        if not goals:
            yield ()
            return
        *before, last = goals
        for others in self._all(before, above, number):
            for instance in self._one(last, above | last.avoid, (*number, len(before))):
                yield (*others, instance)

    def _one(self, goal: Goal, above: frozenset[str], number: Number) -> Iterator[int]:
        """Each way in which the event may come; one that is there already first.

        Args:
            above: events that may not be among its causes.
            number: tells apart what one call emits several of.
        """
        self.steps += 1
        if self.steps > self._limit or len(above) > DEPTH:
            raise GaveUpError
        there = self._there.get(goal.event)
        if there is not None and not goal.by and above.isdisjoint(self._behind[there]):
            yield there
        for instance in self._anew(goal, above, number):
            if there is None:
                self._there[goal.event] = instance
                yield instance
                del self._there[goal.event]
            elif instance != there:
                yield instance

    def _anew(self, goal: Goal, above: frozenset[str], number: Number) -> Iterator[int]:
        event = goal.event
        is_start = event in self._starts and not goal.by
        if is_start and all(event == other or self._may_meet(event, other) for other in self._begun):
            self._begun.append(event)
            yield self._instance(_Instance(event, None, ()), frozenset())
            self._begun.pop()
        for way in self._ways(event):
            if event in way.causes or not above.isdisjoint(way.causes) or goal.by not in {"", way.handler.id}:
                continue
            for causes in self._all([Goal(cause) for cause in way.causes], above | {event}, number):
                for _ in self._by_topics(way, causes):
                    yield from self._emitted(event, way, causes, number)

    def _by_topics(self, way: Way, causes: tuple[int, ...]) -> Iterator[None]:
        """Let each cause come by a topic that the handler reads; nothing, if it has come to another handler by others."""
        left = [self._topics.get(cause, topics) & topics for cause, topics in zip(causes, way.topics, strict=True)]
        if all(left):
            before = {cause: self._topics[cause] for cause in causes if cause in self._topics}
            self._topics.update(zip(causes, left, strict=True))
            yield
            for cause in causes:
                del self._topics[cause]
            self._topics.update(before)

    def _emitted(self, event: str, way: Way, causes: tuple[int, ...], number: Number) -> Iterator[int]:
        call = self._calls.setdefault(_Call(way.handler.id, causes), len(self._calls))
        place = way.handler.id if fires_once(way.handler) else call
        behind = frozenset(way.causes).union(*(self._behind[cause] for cause in causes))
        chosen = choice(way.handler, event)
        instance = self._instance(_Instance(event, call, () if chosen else number), behind)
        if chosen is None or self._chosen.get(place) == (call, chosen):
            yield instance
        elif place not in self._chosen:
            self._chosen[place] = call, chosen
            yield instance
            del self._chosen[place]

    def _instance(self, instance: _Instance, behind: frozenset[str]) -> int:
        if instance not in self._instances:
            self._instances[instance] = len(self._instances)
            self._behind.append(behind)
        return self._instances[instance]


class _Drawn:
    """The instances and calls of a search, to draw paths from."""

    def __init__(self, instances: list[_Instance], calls: list[_Call]) -> None:
        self._instances, self._calls = instances, calls
        self._known: dict[int, Path] = {}

    def path(self, instance: int) -> Path:
        """The longest way to an event."""
        if instance not in self._known:
            event, call, _ = self._instances[instance]
            before = () if call is None else max((self.path(cause) for cause in self._calls[call].causes), key=len)
            here = () if call is None else (self._calls[call].handler,)
            self._known[instance] = (*before, *here, event)
        return self._known[instance]
