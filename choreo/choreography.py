"""The choreography: the declarations of many services as one graph.

Events go by their type names: independent services may each have a class of their own, a view, of one event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from choreo import drawing
from choreo.errors import DeclarationError
from choreo.events import Event, origin_of
from choreo.graph import Batching, Edge, EventNode, Graph, HandlerNode, Joining, Kind, Timing, Undoing
from choreo.handler import Batch, Compensation, Deadline, Handler, Join, Rule
from choreo.service import Service


def dead_letter_topic(service: str) -> str:
    """The topic of a service's dead letters."""
    return f"dlq.{service}"


def retry_topic(service: str) -> str:
    """The topic through which records come back to one service alone: after a long wait, or redriven."""
    return f"retry.{service}"


def topic_settings(topic: str) -> dict[str, str]:
    """What a topic is created with.

    Records of retry topics and dead letters have the time of their originals: a retention by time would remove them as
    they come.
    """
    return {"retention.ms": "-1"} if topic.startswith((dead_letter_topic(""), retry_topic(""))) else {}


@dataclass(frozen=True)
class Choreography:
    """All services of a system, seen as one graph. The same services give the same graph, in whatever order.

    Raises:
        DeclarationError: two services have one name, or two classes of one type name differ in topic, key or outcome.
    """

    services: tuple[Service, ...]

    @classmethod
    def of(cls, services: Iterable[Service]) -> Choreography:
        """The choreography of these services."""
        return cls(tuple(services))

    def __post_init__(self) -> None:
        object.__setattr__(self, "services", tuple(sorted(self.services, key=lambda service: service.name)))
        for one, other in pairwise(self.services):
            if one.name == other.name:
                raise DeclarationError(
                    f"two services have the name {one.name!r}",
                    why="a service's name is its consumer group, so each would get only a part of the events",
                    remedy="rename one of them, or declare all handlers on one Service",
                )
        for name, classes in self._views.items():
            _check_views(name, classes)

    @property
    def event_classes(self) -> tuple[type[Event], ...]:
        """Every event class of every service, each once."""
        return tuple(dict.fromkeys(event for service in self.services for event in service.event_classes))

    @property
    def _views(self) -> dict[str, list[type[Event]]]:
        """The classes of each event, by its name."""
        views: dict[str, list[type[Event]]] = {}
        for cls in self.event_classes:
            views.setdefault(cls.contract.type_name, []).append(cls)
        return views

    @cached_property
    def graph(self) -> Graph:
        """The declarations as plain data."""
        declared = [handler for service in self.services for handler in service.handlers.values()]
        handlers = tuple(map(_handler_node, declared))
        events = tuple(_event_node(name, classes, handlers) for name, classes in sorted(self._views.items()))
        return Graph(tuple(service.name for service in self.services), handlers, events, _edges(declared), self._topics)

    @property
    def handlers(self) -> tuple[HandlerNode, ...]:
        """All handlers, by service, in order of declaration."""
        return self.graph.handlers

    @property
    def events(self) -> tuple[EventNode, ...]:
        """All event types, by name."""
        return self.graph.events

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Which event leads to which handler, which event stops which, and which handler leads to which event."""
        return self.graph.edges

    @property
    def entries(self) -> tuple[EventNode, ...]:
        """Events that no handler emits: they come from outside, and start sagas or go on with them."""
        return self.graph.entries

    @property
    def outcomes(self) -> tuple[EventNode, ...]:
        """Events that no handler is called with: where branches end, well or not (`failure`)."""
        return self.graph.outcomes

    @property
    def topics(self) -> list[str]:
        """Every topic that is needed, those of retries and dead letters included, by name."""
        return list(self._topics)

    @property
    def _topics(self) -> tuple[str, ...]:
        own = {dead_letter_topic(service.name) for service in self.services}
        own |= {retry_topic(service.name) for service in self.services if not service.transactional}
        return tuple(sorted(own | {topic for cls in self.event_classes for topic in cls.contract.topics}))

    def to_json(self) -> str:
        """The graph as indented JSON; what is in it, `Graph.to_json` says."""
        return self.graph.to_json()

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart: services as boxes around their handlers, events between them."""
        return drawing.mermaid(self.graph)

    def to_text(self) -> str:
        """The graph for reading: each event, causes before effects, and below it who reacts and what that emits."""
        return drawing.text(self.graph)


def _check_views(name: str, views: list[type[Event]]) -> None:
    """Check that the classes of one event name one key, one outcome, and one topic or some of those one of them routes to."""
    widest = _widest(views)
    for cls in views:
        if cls.contract.key != widest.contract.key or not set(cls.contract.topics) <= set(widest.contract.topics):
            one, two = (_named(c, f"{' or '.join(c.contract.topics)}, {c.contract.key}") for c in (widest, cls))
            raise DeclarationError(
                f"event {name!r} has two topics or keys: {one} and {two}",
                remedy="let both classes name one topic= and key=, or give one of them name='...'",
            )
        if cls.contract.ends != widest.contract.ends:
            one, two = (_named(c, f"ends={c.contract.ends!r}") for c in (widest, cls))
            raise DeclarationError(
                f"event {name!r} has two outcomes: {one} and {two}",
                why="whether a saga is over is no matter of who looks at it",
                remedy="let both classes say the same ends=",
            )


def _named(cls: type[Event], what: str) -> str:
    return f"{cls.__module__}.{cls.__qualname__} ({what})"


def _widest(views: list[type[Event]]) -> type[Event]:
    """Of the classes of one event, and those that they are views of, the one that names most topics."""
    return max(map(origin_of, views), key=lambda cls: len(cls.contract.topics))


def _event_node(name: str, classes: list[type[Event]], handlers: tuple[HandlerNode, ...]) -> EventNode:
    emitters = [handler for handler in handlers if name in handler.emits]
    contract = _widest(classes).contract
    return EventNode(
        name=name,
        topics=contract.topics,
        key=contract.key,
        failure=any(cls.contract.failure for cls in classes),
        ends=contract.ends,
        compensation=bool(emitters) and all(handler.kind == "compensation" for handler in emitters),
        emitted_by=tuple(handler.id for handler in emitters),
        consumed_by=tuple(handler.id for handler in handlers if name in handler.consumes),
        stops=tuple(handler.id for handler in handlers if name in handler.stopped_by),
    )


def _handler_node(handler: Handler) -> HandlerNode:
    kind, rule = _rule_node(handler.service, handler.rule)
    return HandlerNode(
        id=str(handler),
        service=handler.service,
        name=handler.name,
        kind=kind,
        consumes=_names(_called_with(handler)),
        stopped_by=_names(_stopping(handler)),
        emits=_names(handler.emits.classes),
        may_emit_nothing=handler.emits.nothing or handler.emits.many,
        several=_names(handler.emits.several),
        attempts=handler.retry.attempts,
        ordered=handler.ordered,
        rule=rule,
    )


def _rule_node(service: str, rule: Rule | None) -> tuple[Kind, Undoing | Joining | Timing | Batching | None]:
    match rule:
        case Compensation():
            return "compensation", Undoing(f"{service}.{rule.step}", _names(rule.undoes))
        case Join():
            gathers = rule.events[-1].contract.type_name if rule.gathers else None
            return "join", Joining(rule.by, rule.need, gathers, rule.count if isinstance(rule.count, int) else None)
        case Deadline():
            return "deadline", Timing(rule.within, rule.every, rule.times, rule.grace)
        case Batch():
            return "batch", Batching(rule.max_size, rule.max_age, rule.per)
        case None:
            return "on", None


def _called_with(handler: Handler) -> tuple[type[Event], ...]:
    match handler.rule:
        case Join(events=events):
            return events
        case Deadline(event=event):
            return (event,)
    return handler.consumes


def _stopping(handler: Handler) -> tuple[type[Event], ...]:
    return handler.rule.unless if isinstance(handler.rule, Join | Deadline) else ()


def _edges(handlers: Iterable[Handler]) -> tuple[Edge, ...]:
    consumes: list[Edge] = []
    stops: list[Edge] = []
    emits: list[Edge] = []
    for handler in handlers:
        name = str(handler)
        consumes += [Edge("consumes", *_end(cls, name)) for cls in _called_with(handler)]
        stops += [Edge("stops", *_end(cls, name)) for cls in _stopping(handler)]
        emits += [Edge("emits", name, cls.contract.type_name, cls.contract.topics) for cls in handler.emits.classes]
    return (*consumes, *stops, *emits)


def _end(cls: type[Event], handler: str) -> tuple[str, str, tuple[str, ...]]:
    return cls.contract.type_name, handler, cls.contract.topics


def _names(classes: Iterable[type[Event]]) -> tuple[str, ...]:
    return tuple(cls.contract.type_name for cls in classes)
