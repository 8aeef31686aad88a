"""Examples of sagas in which given events come, looked for within bounds: a concrete one, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from choreo.check.finding import Path
from choreo.check.search import GaveUpError, Goal, Meet, Search
from choreo.check.ways import Way, nearest_first

STEPS = 2000
IN_ALL = 30_000


class Walks:
    """Finds examples, and counts the questions that it gave up on.

    Args:
        starts: the events that come from outside.
        may_meet: whether two of these can belong to one saga.
        together: whether two events can; what it denies is not tried.
        steps: after how many it gives up a question.
        in_all: after how many it answers no further questions.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        starts: Iterable[str],
        may_meet: Meet,
        together: Meet,
        steps: int = STEPS,
        in_all: int = IN_ALL,
    ) -> None:
        self.gave_up = 0
        self._starts = frozenset(starts)
        self._may_meet, self._together, self._limit, self._left = may_meet, together, steps, in_all
        self._known: dict[tuple[Goal, ...], tuple[Path, ...] | None] = {}
        self._leading: dict[str, list[Way]] = {}
        for way in nearest_first(ways, self._starts):
            for event in way.emits:
                self._leading.setdefault(event, []).append(way)

    def example(self, *goals: Goal) -> tuple[Path, ...] | None:
        """A path to each of these events, all in one saga; None if there is none, or none was found in time."""
        if goals not in self._known:
            search = self._search(goals)
            try:
                self._known[goals] = search.paths(goals)
            except (GaveUpError, RecursionError):  # the second where long chains are made of wide joins
                self.gave_up += 1
                self._known[goals] = None
            self._left -= search.steps
        return self._known[goals]

    def _search(self, goals: tuple[Goal, ...]) -> Search:
        known: dict[str, list[Way]] = {}

        def ways(event: str) -> list[Way]:
            """Those by which the event may come while the goals come too."""
            if event not in known:
                known[event] = [way for way in self._leading.get(event, ()) if self._go_with(way, goals)]
            return known[event]

        return Search(ways, self._starts, self._may_meet, min(self._limit, self._left))

    def _go_with(self, way: Way, goals: tuple[Goal, ...]) -> bool:
        return all(self._together(cause, goal.event) for cause in way.causes for goal in goals)
