"""What the parts of a fold work on: the events with who emitted them, and what each handler has to do, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from choreo.graph import HandlerNode, Kind
from choreo.saga.fold.declared import Declared
from choreo.saga.fold.troubles import Trouble
from choreo.saga.model import Duty, DutyStatus, SagaEvent, Surroundings

SLACK_MS = 5_000
"""How much later than due a timer may be before it counts as late, or as called if its handler may emit nothing."""


@dataclass(slots=True, eq=False)
class Draft:
    """A duty in the making.

    Attributes:
        read: whether the handler's group has read the event.
        late: whether its time is over, and it was not called.
        next_ms: when the status changes by time alone.
    """

    node: HandlerNode
    event: SagaEvent
    read: bool
    trouble: Trouble | None
    status: DutyStatus
    emitted: tuple[str, ...]
    due_ms: int | None = None
    late: bool = False
    next_ms: int | None = None

    def duty(self) -> Duty:
        """As others see it."""
        trouble = self.trouble
        if trouble is None:
            return Duty(
                handler=self.node.id, event=self.event.id, status=self.status, emitted=self.emitted, due_ms=self.due_ms
            )
        return Duty(
            handler=self.node.id, event=self.event.id, status=self.status, emitted=self.emitted,
            attempts=trouble.attempts, due_ms=self.due_ms, error=trouble.error, letter=trouble.letter,
            redrives=trouble.redrives,
        )  # fmt: skip


@dataclass(slots=True)
class Wait:
    """A join that has some of its events.

    Attributes:
        have: what it waits with.
        missing: the types of what it waits for.
        need: how many of these suffice; of one that gathers, how many more events of its kind; 0: not known.
        key: the value that its events have in common; empty: the correlation id.
    """

    node: HandlerNode
    have: list[Draft]
    missing: tuple[str, ...]
    need: int
    key: str


@dataclass(slots=True)
class Scene:
    """A saga in the making.

    Attributes:
        name: the correlation id.
        unexplained: events that nothing declared explains, with the reason.
        lost: events whose cause is not there and never will be.
        early: events whose cause is not there yet.
        types: its events by type.
        emitted: events by who emitted them, and for which cause.
        by_step: events by who emitted them.
        ruled: the drafts of handlers with a rule, by kind.
    """

    name: str
    declared: Declared
    around: Surroundings
    events: tuple[SagaEvent, ...]
    by_id: dict[str, SagaEvent]
    unexplained: list[tuple[SagaEvent, str]]
    lost: list[SagaEvent]
    early: list[SagaEvent]
    types: dict[str, list[SagaEvent]] = field(default_factory=dict)
    emitted: dict[tuple[str, str], list[SagaEvent]] = field(default_factory=dict)
    by_step: dict[str, list[SagaEvent]] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    ruled: dict[Kind, list[Draft]] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)

    def __post_init__(self) -> None:
        types, emitted, by_step = self.types, self.emitted, self.by_step
        for event in self.events:
            types.setdefault(event.type, []).append(event)
            if event.handler is not None:
                by_step.setdefault(event.handler, []).append(event)
                if event.cause is not None:
                    emitted.setdefault((event.handler, event.cause), []).append(event)

    def has_read(self, group: str, event: SagaEvent) -> bool:
        """Whether a group has committed past an event: past any record of it, for it drops copies."""
        committed: Mapping[Any, int] = self.around.committed  # a plain pair is found as a TopicPartition is
        for topic, partition, offset in event.places:  # noqa: SIM110 - this is asked most often
            if committed.get((group, (topic, partition)), -1) > offset:
                return True
        return False

    def has_failed(self, step: str) -> SagaEvent | None:
        """The first event after which this step is not started any more, if it is one that is undone."""
        for compensation in self.declared.undoing.get(step, ()):
            for failure in compensation.consumes:
                if failure in self.types:
                    return self.types[failure][0]
        return None
