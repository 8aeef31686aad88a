"""A walk through the choreography that makes given events come in one saga: a concrete example, or none.

Backwards from each event to one from outside, by every way there is, so that no call of a handler emits two events of
which it may emit only one. There may be very many ways, so a walk gives up after a number of steps, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from choreo.check.finding import Path
from choreo.check.ways import Way, choice

STEPS = 3000
DEPTH = 100


class Goal(NamedTuple):
    """An event that is to come: without any of those to avoid among its causes, and emitted `by` a handler if that matters."""

    event: str
    avoid: frozenset[str] = frozenset()
    by: str = ""


class _Instance(NamedTuple):
    """One event of a saga: what it is, which call emitted it (None: it came from outside), and which of several there."""

    event: str
    call: int | None
    number: int


class _Call(NamedTuple):
    """One call of a handler in a saga, with the events that caused it."""

    handler: str
    causes: tuple[int, ...]


class _GaveUpError(Exception):
    """Too many steps."""


class Walks:
    """Finds examples, and counts the questions that it gave up on.

    Args:
        starts: the events that come from outside.
        may_meet: whether two of these can belong to one saga.
        steps: after how many it gives up.
    """

    def __init__(
        self, ways: Sequence[Way], starts: Iterable[str], may_meet: Callable[[str, str], bool], steps: int = STEPS
    ) -> None:
        self.gave_up = 0
        self._starts = frozenset(starts)
        self._may_meet = may_meet
        self._limit = steps
        self._known: dict[tuple[Goal, ...], tuple[Path, ...] | None] = {}
        self._leading: dict[str, list[Way]] = {}
        for way in _nearest_first(ways, self._starts):
            for event in way.emits:
                self._leading.setdefault(event, []).append(way)

    def example(self, *goals: Goal) -> tuple[Path, ...] | None:
        """A path to each of these events, all in one saga; None if there is none, or none was found in time."""
        if goals not in self._known:
            try:
                self._known[goals] = _Attempt(self._leading, self._starts, self._may_meet, self._limit).paths(goals)
            except _GaveUpError:
                self.gave_up += 1
                self._known[goals] = None
        return self._known[goals]


def _nearest_first(ways: Sequence[Way], starts: frozenset[str]) -> list[Way]:
    """The ways that can be gone at all, those near to the start first, so that the examples are short."""
    reached, found, left = set(starts), list[Way](), list(ways)
    while True:
        ready = [reached.issuperset(way.causes) for way in left]
        near = [way for way, is_ready in zip(left, ready, strict=True) if is_ready]
        if not near:
            return found
        left = [way for way, is_ready in zip(left, ready, strict=True) if not is_ready]
        found += near
        reached.update(event for way in near for event in way.emits)


class _Attempt:
    """One search: what was chosen so far is undone where it leads nowhere."""

    def __init__(
        self,
        leading: dict[str, list[Way]],
        starts: frozenset[str],
        may_meet: Callable[[str, str], bool],
        steps: int,
    ) -> None:
        self._leading, self._starts, self._may_meet, self._left = leading, starts, may_meet, steps
        self._instances: dict[_Instance, int] = {}
        self._calls: dict[_Call, int] = {}
        self._chosen: dict[int, str] = {}
        self._begun: list[str] = []
        self._topics: dict[int, frozenset[str]] = {}

    def paths(self, goals: tuple[Goal, ...]) -> tuple[Path, ...] | None:
        for found in self._all(goals, frozenset(), range(len(goals))):
            drawn = _Drawn(list(self._instances), list(self._calls))
            return tuple(drawn.path(instance) for instance in found)
        return None

    def _all(self, goals: Sequence[Goal], above: frozenset[str], numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
        if not goals:
            yield ()
            return
        first, *rest = goals
        for instance in self._one(first, above | first.avoid, numbers[0]):
            for others in self._all(rest, above, numbers[1:]):
                yield (instance, *others)

    def _one(self, goal: Goal, above: frozenset[str], number: int) -> Iterator[int]:
        """Each way in which the event may come; `number` tells apart what one call emits several of."""
        event = goal.event
        self._left -= 1
        if self._left < 0 or len(above) > DEPTH:
            raise _GaveUpError
        if (
            event in self._starts
            and not goal.by
            and all(event == other or self._may_meet(event, other) for other in self._begun)
        ):
            self._begun.append(event)
            yield self._instance(_Instance(event, None, 0))
            self._begun.pop()
        for way in self._leading.get(event, ()):
            if event in way.causes or not above.isdisjoint(way.causes) or goal.by not in {"", way.handler.id}:
                continue
            goals, numbers = [Goal(cause) for cause in way.causes], [number] * len(way.causes)
            for causes in self._all(goals, above | {event}, numbers):
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

    def _emitted(self, event: str, way: Way, causes: tuple[int, ...], number: int) -> Iterator[int]:
        call = self._calls.setdefault(_Call(way.handler.id, causes), len(self._calls))
        chosen = choice(way.handler, event)
        instance = self._instance(_Instance(event, call, 0 if chosen else number))
        if chosen is None or self._chosen.get(call) == chosen:
            yield instance
        elif call not in self._chosen:
            self._chosen[call] = chosen
            yield instance
            del self._chosen[call]

    def _instance(self, instance: _Instance) -> int:
        return self._instances.setdefault(instance, len(self._instances))


class _Drawn:
    """The instances and calls of an example, to draw paths from."""

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
