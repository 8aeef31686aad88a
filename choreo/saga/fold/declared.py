"""What a fold asks of the declared choreography, worked out once for each graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from choreo.graph import Graph, HandlerNode, Joining, Undoing

Nodes = tuple[HandlerNode, ...]
_MOST = 16
"""How many graphs are kept; a process has one or two."""


class Declared:
    """A graph, ready to be asked.

    Attributes:
        takers: who is called with an event of this type in this topic; by id.
        emitters: who emits an event of this type for a cause of that type, by (service, type, type of the cause).
        emitting: who emits an event of this type, by (service, type).
        starting: the batches that emit an event of this type, by (service, type): each begins a saga of its own.
        undoing: the compensations of each step, by the step's id.
        undoes: the first compensation that undoes what a step emits, by the ids of the step and the type.
        failing: the types after which some step is undone.
        entries: the types that come from outside.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.handler = graph.handler
        self.event = graph.event
        self.services = frozenset(graph.services)
        self.entries = frozenset(event.name for event in graph.entries)
        self.ends = frozenset(event.name for event in graph.events if event.ends)
        self.by_key = frozenset(handler.id for handler in graph.handlers if self._is_by_key(handler))
        self.takers = self._takers()
        self._take_emitters()
        self._take_compensations()
        self._reach: dict[str, frozenset[str]] = {}
        self._hears: dict[str, frozenset[str]] = {}

    def _takers(self) -> dict[tuple[str, str], Nodes]:
        takers = defaultdict(set)
        for edge in self.graph.edges:
            if edge.kind == "consumes":
                for topic in edge.topics:
                    takers[edge.event, topic].add(edge.handler)
        return {at: tuple(self.handler[name] for name in sorted(names)) for at, names in takers.items()}

    def _take_emitters(self) -> None:
        by_cause, by_service, starting = defaultdict(list), defaultdict(list), defaultdict(list)
        for handler in self.graph.handlers:
            for emitted in handler.emits:
                if handler.kind == "batch":
                    starting[handler.service, emitted].append(handler)
                    continue
                by_service[handler.service, emitted].append(handler)
                for cause in handler.consumes:
                    by_cause[handler.service, emitted, cause].append(handler)
        self.emitters: dict[tuple[str, str, str], Nodes] = {at: tuple(found) for at, found in by_cause.items()}
        self.emitting: dict[tuple[str, str], Nodes] = {at: tuple(found) for at, found in by_service.items()}
        self.starting: dict[tuple[str, str], Nodes] = {at: tuple(found) for at, found in starting.items()}

    def _take_compensations(self) -> None:
        undoing = defaultdict(list)
        for handler in self.graph.handlers:
            if isinstance(handler.rule, Undoing):
                undoing[handler.rule.step].append(handler)
        self.undoing: dict[str, Nodes] = {step: tuple(found) for step, found in undoing.items()}
        self.undoes: dict[tuple[str, str], str] = {}
        for step, compensations in undoing.items():
            for each in reversed(compensations):
                self.undoes |= {(step, name): each.id for name in undone_by(each)}
        self.failing = frozenset(name for found in undoing.values() for each in found for name in each.consumes)

    def _is_by_key(self, handler: HandlerNode) -> bool:
        """Whether a join's events of one saga can be told apart by their keys as it tells them apart by its field."""
        rule = handler.rule
        names = (*handler.consumes, *handler.stopped_by)
        return isinstance(rule, Joining) and all(self.event[name].key == rule.by for name in names)

    def reach(self, name: str) -> frozenset[str]:
        """The types that can come of an event of this type in its saga, if need be together with others; itself too."""
        found = self._reach.get(name)
        if found is None:
            if name not in self.event:
                return frozenset((name,))
            found = self._reach[name] = self._closure(name)
        return found

    def _closure(self, name: str) -> frozenset[str]:
        seen, ahead = {name}, [name]
        while ahead:
            for taker in self.event[ahead.pop()].consumed_by:
                handler = self.handler[taker]
                fresh = () if handler.kind == "batch" else tuple(each for each in handler.emits if each not in seen)
                seen.update(fresh)
                ahead += fresh
        return frozenset(seen)

    def reach_of(self, names: Iterable[str]) -> frozenset[str]:
        """The types that can come of events of these types."""
        return frozenset().union(*map(self.reach, names))

    def hears(self, service: str) -> frozenset[str]:
        """The types that a service reacts to in any way, or emits itself."""
        found = self._hears.get(service)
        if found is None:
            own = [handler for handler in self.graph.handlers if handler.service == service]
            found = frozenset(name for each in own for name in (*each.consumes, *each.stopped_by, *each.emits))
            self._hears[service] = found
        return found


def undone_by(compensation: HandlerNode) -> tuple[str, ...]:
    """The types that a compensation undoes."""
    return compensation.rule.events if isinstance(compensation.rule, Undoing) else ()


_known: dict[int, Declared] = {}


def declared(graph: Graph) -> Declared:
    """Of this very graph; graphs are not compared, for that takes longer than a fold."""
    found = _known.get(id(graph))
    if found is None or found.graph is not graph:
        if len(_known) >= _MOST:
            _known.clear()
        found = _known[id(graph)] = Declared(graph)
    return found
