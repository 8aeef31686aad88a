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
from choreo.events import Event
from choreo.service import Handler, Service


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
        failure: whether it ends a branch unsuccessfully; so it is as soon as one service declares it so.
        emitted_by, consumed_by: the ids of the handlers at its two ends.
    """

    name: str
    topic: str
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
    """`consumes`: from an event's name to a handler's id; `emits`: from a handler's id to an event's name."""

    kind: Literal["consumes", "emits"]
    source: str
    target: str


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
                topic=classes[0].contract.topic,
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
        consumes = [Edge("consumes", event, handler.id) for handler in self.handlers for event in handler.consumes]
        emits = [Edge("emits", handler.id, event) for handler in self.handlers for event in handler.emits]
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
        return sorted(own | {event.topic for event in self.events})

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
        for edge in self.edges:
            source, target = ("e", "h") if edge.kind == "consumes" else ("h", "e")
            lines.append(f"  {_node(source, edge.source)} --> {_node(target, edge.target)}")
        return "\n".join([*lines, "  classDef failure stroke:#c00,stroke-width:2px"])

    def to_text(self) -> str:
        """The graph for reading: each event, causes before effects, and below it who reacts and what that emits."""
        lines = [f"services: {len(self.services)}, handlers: {len(self.handlers)}, events: {len(self.events)}"]
        for event in self._causes_first():
            notes = [f"topic {event.topic}", f"key {event.key}"]
            notes += ["failure"] * event.failure + ["from outside"] * (not event.emitted_by)
            lines += ["", f"{event.name} ({', '.join(notes)})"]
            lines += [f"  {_reaction(h)}" for h in self.handlers if event.name in h.consumes] or ["  nobody reacts"]
        return "\n".join(lines)

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
    known: dict[str, type[Event]] = {}
    for cls in classes:
        other = known.setdefault(cls.contract.type_name, cls)
        if (other.contract.topic, other.contract.key) != (cls.contract.topic, cls.contract.key):
            one, two = (f"{c.__module__}.{c.__qualname__} ({c.contract.topic}, {c.contract.key})" for c in (other, cls))
            raise DeclarationError(
                f"event {cls.contract.type_name!r} has two topics or keys: {one} and {two}",
                remedy="let both classes name one topic= and key=, or give one of them name='...'",
            )


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
