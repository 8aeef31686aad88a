"""What makes a handler emit, with all kinds of handlers reduced to one: events that must have come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

from choreo.graph import Graph, HandlerNode, Joining, Timing, Undoing

_COMBINATIONS = 60


class Way(NamedTuple):
    """A handler is called once all of these events have come.

    Attributes:
        handler: whose way it is.
        causes: the events.
        topics: through which each of them comes; a handler may read only some of those that its event is routed to.
        emits: what may follow in the same saga; a batch begins sagas of its own.
    """

    handler: HandlerNode
    causes: tuple[str, ...]
    topics: tuple[frozenset[str], ...]
    emits: tuple[str, ...]


def ways_of(graph: Graph) -> tuple[Way, ...]:
    """All ways of all handlers."""
    read = {(edge.event, edge.handler): frozenset(edge.topics) for edge in graph.edges if edge.kind == "consumes"}
    whole = {event.name: frozenset(event.topics) for event in graph.events}
    return tuple(
        Way(
            handler,
            causes,
            tuple(read.get((cause, handler.id), whole[cause]) for cause in causes),
            () if handler.kind == "batch" else handler.emits,
        )
        for handler in graph.handlers
        for causes in _causes(handler)
    )


def _causes(handler: HandlerNode) -> list[tuple[str, ...]]:
    match handler.rule:
        case Undoing(events=undone):
            return [(event, failure) for event in undone for failure in handler.consumes]
        case Joining(need=need):
            return _some_of(handler.consumes, need)
    return [(event,) for event in handler.consumes]


def _some_of(events: tuple[str, ...], need: int) -> list[tuple[str, ...]]:
    """The ways to have so many of the events; where there are very many, each event alone, which leads to the same events."""
    if comb(len(events), need) > _COMBINATIONS:
        return [(event,) for event in events]
    return list(combinations(events, need))


def nearest_first(ways: Sequence[Way], starts: Iterable[str]) -> list[Way]:
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


def fires_once(handler: HandlerNode) -> bool:
    """Whether it is called once in a saga, whatever comes: a join by correlation id."""
    return isinstance(handler.rule, Joining) and handler.rule.by is None


def choice(handler: HandlerNode, event: str) -> str | None:
    """What a call has chosen that emits the event: it emits nothing that another choice stands for.

    Events that may come beside each other are one choice. None: the call, or another one by the same cause, may emit it
    whatever it has chosen.
    """
    match handler.rule:
        case Timing(times=times) if times > 1:
            return None
        case Joining(by=by) if by is not None:  # it fires for each value of the field
            return None
    return "" if event in handler.several else event


def go_together(handler: HandlerNode, one: str, other: str) -> bool:
    """Whether both may be emitted by what is one call, or the same event twice."""
    chosen = choice(handler, one)
    return chosen is None or chosen == choice(handler, other) == ""
