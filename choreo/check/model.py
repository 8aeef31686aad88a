"""The choreography as the rules ask it: who leads to what, what can come together, which failures make a saga fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from choreo.check.finding import Path
from choreo.check.search import Goal
from choreo.check.sources import Source, Sources
from choreo.check.together import Together
from choreo.check.walk import STEPS, Walks
from choreo.check.ways import Way, ways_of
from choreo.choreography import Choreography
from choreo.graph import EventNode, Graph, HandlerNode, Undoing

_COUNTERS = {
    *("attempt", "attempts", "count", "counter", "depth", "generation", "hop", "hops", "iteration", "level", "repeat"),
    *("repeats", "retries", "retry", "round", "rounds", "tries", "try"),
}
_NOTHING = Source()


@dataclass(frozen=True)
class Model:
    """A choreography, and what can be derived of it.

    Attributes:
        sources: what the source of each handler tells, by its id.
        counting: events with a field that counts.
        on_one_machine: services whose store is a file.
        steps: how far a walk goes before it gives up.
    """

    graph: Graph
    sources: Mapping[str, Source] = field(default_factory=dict)
    counting: frozenset[str] = frozenset()
    on_one_machine: frozenset[str] = frozenset()
    steps: int = STEPS

    @classmethod
    def of(cls, choreography: Choreography, *, steps: int = STEPS) -> Model:
        """Of a choreography, with its sources."""
        sources = Sources()
        read = {str(h): sources.of(h) for service in choreography.services for h in service.handlers.values()}
        counting = frozenset(
            event.contract.type_name
            for event in choreography.event_classes
            if any(f.annotation is int and _COUNTERS & set(name.split("_")) for name, f in event.model_fields.items())
        )
        files = frozenset(s.name for s in choreography.services if not (s.store or "").startswith("postgres"))
        return cls(choreography.graph, read, counting, files, steps)

    def source(self, handler: HandlerNode) -> Source:
        """What its source tells."""
        return self.sources.get(handler.id, _NOTHING)

    # --- who leads to what ----------------------------------------------------------------------------------------

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """All ways of all handlers."""
        return ways_of(self.graph)

    @cached_property
    def starts(self) -> tuple[str, ...]:
        """The events that come from outside, and those that batches emit: they begin sagas of their own."""
        begun = [event for handler in self.graph.handlers if handler.kind == "batch" for event in handler.emits]
        return tuple(dict.fromkeys([*(event.name for event in self.graph.entries), *begun]))

    @cached_property
    def reacting(self) -> dict[str, list[Way]]:
        """The ways that an event is part of."""
        found: dict[str, list[Way]] = {event.name: [] for event in self.graph.events}
        for way in self.ways:
            for cause in way.causes:
                found[cause].append(way)
        return found

    @cached_property
    def undoing(self) -> dict[str, list[HandlerNode]]:
        """The compensations of each step, by the step's id."""
        found: dict[str, list[HandlerNode]] = {}
        for handler in self.graph.handlers:
            if isinstance(handler.rule, Undoing):
                found.setdefault(handler.rule.step, []).append(handler)
        return found

    def follows(self, event: str) -> frozenset[str]:
        """The event, and what it can lead to, if need be together with others."""
        if event not in self._known:
            self._known[event] = self._closure((event,))
        return self._known[event]

    def comes_without(self, event: str, handler: HandlerNode) -> bool:
        """Whether the event can come in a saga in which the handler has not been called."""
        if handler.id not in self._spared:
            self._spared[handler.id] = self._closure(self.starts, without=handler.id)
        return event in self._spared[handler.id]

    @cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _spared(self) -> dict[str, frozenset[str]]:
        return {}

    def _closure(self, events: Iterable[str], without: str = "") -> frozenset[str]:
        found, waiting = set(events), list(events)
        while waiting:
            for way in self.reacting[waiting.pop()]:
                if way.handler.id != without:
                    waiting += [emitted for emitted in way.emits if emitted not in found]
                    found.update(way.emits)
        return frozenset(found)

    def first_of(self, events: Iterable[str]) -> list[str]:
        """Those of the events that do not come of another one of them."""
        all_of_them = list(events)
        return [
            event
            for event in all_of_them
            if not any(event in self.follows(o) and o not in self.follows(event) for o in all_of_them)
        ]

    def path(self, first: str, last: str) -> Path:
        """The shortest path from one event to another that it leads to."""
        before: dict[str, Path] = {first: (first,)}
        waiting = deque([first])
        while waiting and last not in before:
            event = waiting.popleft()
            for way in self.reacting[event]:
                for emitted in way.emits:
                    if emitted not in before:
                        before[emitted] = (*before[event], way.handler.id, emitted)
                        waiting.append(emitted)
        return before.get(last, (first, last))

    # --- what can come together -----------------------------------------------------------------------------------

    @cached_property
    def loosely(self) -> Together:
        """What can come together if any two events from outside can belong to one saga: what this denies, cannot be."""
        return self._together(all_starts=True)

    @cached_property
    def together(self) -> Together:
        """What can come together if events from outside meet in a saga only where some handler looks for both."""
        return self._together(all_starts=False)

    def _together(self, *, all_starts: bool) -> Together:
        def meet(one: str, other: str) -> bool:
            return all_starts or self.may_meet(one, other)

        return Together(self.ways, [event.name for event in self.graph.events], self.starts, meet)

    def may_meet(self, one: str, other: str) -> bool:
        """Whether two events from outside seem to belong to one saga."""
        return frozenset((one, other)) in self._linked

    @cached_property
    def _linked(self) -> frozenset[frozenset[str]]:
        """Pairs of starts that some handler waits for together, and that nothing else brings together."""
        of = {
            event.name: {start for start in self.starts if event.name in self.follows(start)}
            for event in self.graph.events
        }
        pairs = {frozenset(pair) for way in self.ways for pair in combinations(way.causes, 2)}
        pairs |= {frozenset((e, s)) for h in self.graph.handlers for e in h.consumes for s in h.stopped_by if e != s}
        linked = set()
        for one, other in map(sorted, pairs):
            if not of[one] & of[other]:
                linked |= {frozenset((a, b)) for a in of[one] for b in of[other]}
        return frozenset(linked)

    @cached_property
    def walks(self) -> Walks:
        """Examples of what can come together."""
        return Walks(self.ways, self.starts, self.may_meet, self.together.meet, self.steps)

    def example(self, one: Goal, other: Goal) -> tuple[Path, Path] | None:
        """Paths to two events in one saga; None if they cannot both come, or it took too long to see how."""
        if not self.together.meet(one.event, other.event):
            return None
        paths = self.walks.example(one, other)
        return None if paths is None else (paths[0], paths[1])

    # --- outcomes -------------------------------------------------------------------------------------------------

    @cached_property
    def ends(self) -> tuple[EventNode, ...]:
        """The events that end sagas."""
        return tuple(event for event in self.graph.events if event.ends)

    @cached_property
    def completes(self) -> frozenset[str]:
        """Events that can lead to a good end, and the good ends."""
        good = {event.name for event in self.ends if event.ends == "completed"}
        return frozenset(event.name for event in self.graph.events if self.follows(event.name) & good)

    @cached_property
    def dooms(self) -> frozenset[str]:
        """Events that make a saga fail by themselves: a bad end, or a failure that some step is undone on."""
        undone = {name for handlers in self.undoing.values() for handler in handlers for name in handler.consumes}
        return frozenset(undone | {event.name for event in self.ends if event.ends == "failed"})

    def is_fatal(self, failure: EventNode) -> bool:
        """Whether a failure makes its saga fail: it leads to what does, or a good end is out of reach after it."""
        if self.follows(failure.name) & self.dooms:
            return True
        if failure.name in self.completes:
            return False
        emitters = [self.graph.handler[name] for name in failure.emitted_by]
        return any(self.completes & set(handler.emits) for handler in emitters)

    @cached_property
    def failures(self) -> tuple[EventNode, ...]:
        """The failures that can come, without those of compensations."""
        return tuple(
            event
            for event in self.graph.events
            if (event.failure or event.ends == "failed")
            and self.together.reaches(event.name)
            and not event.compensation
        )


def in_order(one: EventNode, other: EventNode) -> bool:
    """Whether a service reads two events of one entity in the order in which they were produced."""
    return one.topics == other.topics and len(one.topics) == 1 and one.key == other.key
