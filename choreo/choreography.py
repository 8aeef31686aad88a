"""The choreography: the declarations of many services as one graph, as plain data.

Events go by their type names: independent services may each have a class of their own, a view, of one event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from choreo.errors import DeclarationError
from choreo.events import Event, origin_of
from choreo.handler import Handler
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
class EventNode:
    """One event type.

    Attributes:
        name: its type name on the wire.
        topics: where its records go: more than one if that depends on the event.
        failure: whether it ends a branch unsuccessfully; so it is as soon as one service declares it so.
        emitted_by, consumed_by: the ids of the handlers at its two ends.
    """

    name: str
    topics: tuple[str, ...]
    key: str
    failure: bool
    emitted_by: tuple[str, ...]
    consumed_by: tuple[str, ...]


@dataclass(frozen=True)
class HandlerNode:
    """One handler (its id is `service.name`), the events that cause it and the events it may emit, by type name.

    Attributes:
        may_emit_nothing: whether it may end its branch without an event.
        fan_out: whether it may emit several events at once.
    """

    id: str
    service: str
    name: str
    consumes: tuple[str, ...]
    emits: tuple[str, ...]
    may_emit_nothing: bool
    fan_out: bool


class Edge(NamedTuple):
    """`consumes`: from an event's name to a handler's id; `emits`: from a handler's id to an event's name.

    Attributes:
        topics: through which; a handler may read only some of its event's topics.
    """

    kind: Literal["consumes", "emits"]
    source: str
    target: str
    topics: tuple[str, ...]


@dataclass(frozen=True)
class Choreography:
    """All services of a system, seen as one graph. The same services give the same graph, in whatever order.

    Raises:
        DeclarationError: two services have one name, or two classes of one type name differ in topic or key.
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
        _check_views(self.event_classes)

    @property
    def event_classes(self) -> tuple[type[Event], ...]:
        """Every event class of every service, each once."""
        return tuple(dict.fromkeys(event for service in self.services for event in service.event_classes))

    @cached_property
    def handlers(self) -> tuple[HandlerNode, ...]:
        """All handlers, by service, in order of declaration."""
        return tuple(_handler_node(handler) for service in self.services for handler in service.handlers.values())

    @cached_property
    def events(self) -> tuple[EventNode, ...]:
        """All event types, by name."""
        views: dict[str, list[type[Event]]] = {}
        for cls in self.event_classes:
            views.setdefault(cls.contract.type_name, []).append(cls)
        return tuple(
            EventNode(
                name=name,
                topics=_widest(classes).contract.topics,
                key=classes[0].contract.key,
                failure=any(cls.contract.failure for cls in classes),
                emitted_by=tuple(handler.id for handler in self.handlers if name in handler.emits),
                consumed_by=tuple(handler.id for handler in self.handlers if name in handler.consumes),
            )
            for name, classes in sorted(views.items())
        )

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Which event leads to which handler, and which handler to which event."""
        consumes, emits = [], []
        for handler in (handler for service in self.services for handler in service.handlers.values()):
            name = str(handler)
            consumes += [
                Edge("consumes", cls.contract.type_name, name, cls.contract.topics) for cls in handler.consumes
            ]
            emits += [Edge("emits", name, cls.contract.type_name, cls.contract.topics) for cls in handler.emits.classes]
        return (*consumes, *emits)

    @property
    def entries(self) -> tuple[EventNode, ...]:
        """Events that no handler emits: they come from outside and start sagas."""
        return tuple(event for event in self.events if not event.emitted_by)

    @property
    def outcomes(self) -> tuple[EventNode, ...]:
        """Events that no handler consumes: where branches end, well or not (`failure`)."""
        return tuple(event for event in self.events if not event.consumed_by)

    @property
    def topics(self) -> list[str]:
        """Every topic that is needed, those of retries and dead letters included, by name."""
        own = {dead_letter_topic(service.name) for service in self.services}
        own |= {retry_topic(service.name) for service in self.services if not service.transactional}
        return sorted(own | {topic for cls in self.event_classes for topic in cls.contract.topics})

    def to_json(self) -> str:
        """The graph as indented JSON.

        `version` (grows when a reader of the older shape would err); `services` (`name`); `handlers`, `events`, `edges`
        (the attributes of their classes here); `topics`, `entries` and `outcomes` (names).
        """
        graph = {
            "version": 1,
            "services": [{"name": service.name} for service in self.services],
            "handlers": [asdict(handler) for handler in self.handlers],
            "events": [asdict(event) for event in self.events],
            "edges": [edge._asdict() for edge in self.edges],
            "topics": self.topics,
            "entries": [event.name for event in self.entries],
            "outcomes": [event.name for event in self.outcomes],
        }
        return json.dumps(graph, indent=2, ensure_ascii=False)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart: services as boxes around their handlers, events between them."""
        lines = ["flowchart LR"]
        for service in self.services:
            lines.append(f'  subgraph {_node("s", service.name)}["{service.name}"]')
            lines += [f'    {_node("h", str(handler))}["{handler.name}"]' for handler in service.handlers.values()]
            lines.append("  end")
        for event in self.events:
            lines.append(f'  {_node("e", event.name)}(["{event.name}"]){":::failure" * event.failure}')
        whole = {event.name: event.topics for event in self.events}
        for edge in self.edges:
            source, target = ("e", "h") if edge.kind == "consumes" else ("h", "e")
            name = edge.source if edge.kind == "consumes" else edge.target
            through = f'|"{", ".join(edge.topics)}"|' if edge.topics != whole[name] else ""
            lines.append(f"  {_node(source, edge.source)} -->{through} {_node(target, edge.target)}")
        return "\n".join([*lines, "  classDef failure stroke:#c00,stroke-width:2px"])

    def to_text(self) -> str:
        """The graph for reading: each event, causes before effects, and below it who reacts and what that emits."""
        lines = [f"services: {len(self.services)}, handlers: {len(self.handlers)}, events: {len(self.events)}"]
        for event in self._causes_first():
            notes = [f"topic {' or '.join(event.topics)}", f"key {event.key}"]
            notes += ["failure"] * event.failure + ["from outside"] * (not event.emitted_by)
            lines += ["", f"{event.name} ({', '.join(notes)})"]
            lines += self._reactions(event) or ["  nobody reacts"]
        return "\n".join(lines)

    def _reactions(self, event: EventNode) -> list[str]:
        by_id = {handler.id: handler for handler in self.handlers}
        read = {
            edge.target: edge.topics for edge in self.edges if edge.kind == "consumes" and edge.source == event.name
        }
        return [
            f"  {_reaction(by_id[name])}" + (f" (only from {', '.join(topics)})" if topics != event.topics else "")
            for name, topics in read.items()
        ]

    def _causes_first(self) -> list[EventNode]:
        """Breadth first from the entries; what only a cycle leads to comes last."""
        by_name = {event.name: event for event in self.events}
        order = [event.name for event in self.entries]
        for name in order:  # grows while it is walked
            for handler in self.handlers:
                if name in handler.consumes:
                    order += [emitted for emitted in handler.emits if emitted not in order]
        return [by_name[name] for name in dict.fromkeys([*order, *by_name])]


def _check_views(classes: tuple[type[Event], ...]) -> None:
    """Check that the classes of one event name one key, and one topic or some of those that one of them routes to."""
    views: dict[str, list[type[Event]]] = {}
    for cls in classes:
        views.setdefault(cls.contract.type_name, []).append(cls)
    for name, same in views.items():
        other = _widest(same)
        for cls in same:
            if cls.contract.key != other.contract.key or not set(cls.contract.topics) <= set(other.contract.topics):
                one, two = (
                    f"{c.__module__}.{c.__qualname__} ({' or '.join(c.contract.topics)}, {c.contract.key})"
                    for c in (other, cls)
                )
                raise DeclarationError(
                    f"event {name!r} has two topics or keys: {one} and {two}",
                    remedy="let both classes name one topic= and key=, or give one of them name='...'",
                )


def _widest(views: list[type[Event]]) -> type[Event]:
    """Of the classes of one event, and those that they are views of, the one that names most topics."""
    return max(map(origin_of, views), key=lambda cls: len(cls.contract.topics))


def _handler_node(handler: Handler) -> HandlerNode:
    return HandlerNode(
        id=str(handler),
        service=handler.service,
        name=handler.name,
        consumes=tuple(cls.contract.type_name for cls in handler.consumes),
        emits=tuple(cls.contract.type_name for cls in handler.emits.classes),
        may_emit_nothing=handler.emits.nothing or handler.emits.many,
        fan_out=handler.emits.many,
    )


def _node(kind: str, name: str) -> str:
    """A Mermaid id: letters, digits and `_`, different for different names."""
    return f"{kind}_" + re.sub(r"[^A-Za-z0-9]", lambda m: "__" if m[0] == "_" else f"_{ord(m[0]):x}_", name)


def _reaction(handler: HandlerNode) -> str:
    emitted = " | ".join([*handler.emits, *["nothing"] * handler.may_emit_nothing])
    return f"{handler.id} -> {'several of ' * handler.fan_out}{emitted}"
