"""The choreography as plain data: events, handlers with their rules, and the edges between them.

Nothing here knows classes or functions, so it can be drawn, checked, compared and sent elsewhere. Times are seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from choreo.events import Outcome

Kind: TypeAlias = Literal["on", "compensation", "join", "deadline", "batch"]


@dataclass(frozen=True)
class Undoing:
    """What a compensation undoes.

    Attributes:
        step: the handler's id.
        events: what of the step's events it is called with.
    """

    step: str
    events: tuple[str, ...]


@dataclass(frozen=True)
class Joining:
    """How the events of a join find each other.

    Attributes:
        by: the field whose value they have in common; None: the correlation id.
        need: how many of the events suffice.
        gathers: the event that is gathered in a list, if one is.
        count: how many of it; None where the first event tells, or nothing is gathered.
    """

    by: str | None
    need: int
    gathers: str | None
    count: int | None


@dataclass(frozen=True)
class Timing:
    """When a deadline is called: `within` seconds after its event, then `every` so many (0: not again), `times` in all.

    Attributes:
        grace: so many seconds later than that, for what stops it may be under way.
    """

    within: float
    every: float
    times: int
    grace: float


@dataclass(frozen=True)
class Batching:
    """When a batch is full: at `max_size` events, or `max_age` seconds after the first; `per` partition or key."""

    max_size: int
    max_age: float
    per: Literal["partition", "key"]


@dataclass(frozen=True)
class EventNode:
    """One event type.

    Attributes:
        name: its type name on the wire.
        topics: where its records go: more than one if that depends on the event.
        failure: whether it ends a branch unsuccessfully; so it is as soon as one service declares it so.
        ends: the outcome that it gives its saga; None if the saga goes on.
        compensation: whether compensations alone emit it.
        emitted_by, consumed_by: the ids of the handlers at its two ends.
        stops: the ids of the joins and deadlines that wait no longer once it has come.
    """

    name: str
    topics: tuple[str, ...]
    key: str
    failure: bool
    ends: Outcome | None
    compensation: bool
    emitted_by: tuple[str, ...]
    consumed_by: tuple[str, ...]
    stops: tuple[str, ...]


@dataclass(frozen=True)
class HandlerNode:
    """One handler (its id is `service.name`), the events that cause it and the events it may emit, by type name.

    Attributes:
        kind: how it is declared.
        consumes: the events it is called with; of a compensation, the failures that make it undo its step.
        stopped_by: the events after which a join or deadline waits no longer (`unless`).
        may_emit_nothing: whether it may end its branch without an event.
        several: which of them it may emit several of at once, also beside each other.
        attempts: how often it is called at most for one event.
        ordered: whether later events of a key wait for one that is being retried or is a dead letter.
        rule: what its kind says besides; None for `on`.
    """

    id: str
    service: str
    name: str
    kind: Kind
    consumes: tuple[str, ...]
    stopped_by: tuple[str, ...]
    emits: tuple[str, ...]
    may_emit_nothing: bool
    several: tuple[str, ...]
    attempts: int
    ordered: bool
    rule: Undoing | Joining | Timing | Batching | None

    @property
    def fan_out(self) -> bool:
        """Whether it may emit several events at once."""
        return bool(self.several)


class Edge(NamedTuple):
    """`consumes`, `stops`: from an event's name to a handler's id; `emits`: from a handler's id to an event's name.

    Attributes:
        topics: through which; a handler may read only some of its event's topics.
    """

    kind: Literal["consumes", "stops", "emits"]
    source: str
    target: str
    topics: tuple[str, ...]

    @property
    def event(self) -> str:
        """The end that is an event."""
        return self.target if self.kind == "emits" else self.source

    @property
    def handler(self) -> str:
        """The end that is a handler."""
        return self.source if self.kind == "emits" else self.target


@dataclass(frozen=True)
class Graph:
    """All declarations of many services.

    Attributes:
        services: their names, sorted.
        handlers: by service, in order of declaration.
        events: by name.
        topics: every topic that is needed, those of retries and dead letters included, sorted.
    """

    services: tuple[str, ...]
    handlers: tuple[HandlerNode, ...]
    events: tuple[EventNode, ...]
    edges: tuple[Edge, ...]
    topics: tuple[str, ...]

    @cached_property
    def handler(self) -> dict[str, HandlerNode]:
        """Handlers by id."""
        return {handler.id: handler for handler in self.handlers}

    @cached_property
    def event(self) -> dict[str, EventNode]:
        """Events by name."""
        return {event.name: event for event in self.events}

    @property
    def entries(self) -> tuple[EventNode, ...]:
        """Events that no handler emits: they come from outside, and start sagas or go on with them.

        A compensation's failure, or what only stops a join or deadline, is none: those wait for what others emit.
        """
        return tuple(event for event in self.events if not event.emitted_by and self._is_called_with(event))

    @property
    def outcomes(self) -> tuple[EventNode, ...]:
        """Emitted events that no handler is called with: where branches end, well or not (`failure`)."""
        return tuple(event for event in self.events if event.emitted_by and not event.consumed_by)

    def _is_called_with(self, event: EventNode) -> bool:
        return any(self.handler[name].kind != "compensation" for name in event.consumed_by)

    def to_json(self) -> str:
        """The graph as indented JSON.

        `version` (grows when a reader of the older shape would err); `services` (`name`); `handlers`, `events`, `edges`
        (the attributes of their classes here); `topics`, `entries` and `outcomes` (names).
        """
        graph = {
            "version": 2,
            "services": [{"name": name} for name in self.services],
            "handlers": [asdict(handler) for handler in self.handlers],
            "events": [asdict(event) for event in self.events],
            "edges": [edge._asdict() for edge in self.edges],
            "topics": self.topics,
            "entries": [event.name for event in self.entries],
            "outcomes": [event.name for event in self.outcomes],
        }
        return json.dumps(graph, indent=2, ensure_ascii=False)
