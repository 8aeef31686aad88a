"""What a service declares of one handler: what it reacts to, what it emits, and the rule by which it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from choreo.events import Event, Failure
from choreo.retry import Retry
from choreo.signatures import Emits


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """The handler undoes a step: it is called once for each event that the step has emitted in a saga, when that saga fails.

    Attributes:
        step: the name of the handler that it undoes.
        failures: any of these makes the saga fail for this step; further ones change nothing.
        undoes: what of the step's events it is called with; a step that has emitted none of them leaves nothing to undo.
        takes_list: whether it is called once for all events that one run of the step emitted.
    """

    step: str
    failures: tuple[type[Failure], ...]
    undoes: tuple[type[Event], ...]
    takes_list: bool


@dataclass(frozen=True, kw_only=True)
class Join:
    """The handler waits for several events, and is called once with all of them.

    Attributes:
        events: one of each, the first that came of its kind.
        by: the field whose value they have in common; None: the correlation id.
        need: how many of the events suffice.
        count: how many of the last event are gathered, or a function that tells it from the first event; None: one.
        unless: events after which it cannot fire any more.
    """

    events: tuple[type[Event], ...]
    by: str | None
    need: int
    count: int | Callable[[Any], int] | None
    unless: tuple[type[Event], ...]

    @cached_property
    def gathers(self) -> bool:
        """Whether the last argument is a list."""
        return self.count is not None


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The handler is called some time after an event, unless another one of its saga was produced by then.

    Attributes:
        event: what sets the timer.
        within: seconds from when that was produced until the handler is called.
        every: seconds between further calls; 0 if there are none.
        times: how often it is called at most.
        unless: what stops it.
        grace: seconds that an event which stops it may be under way, produced before and read after the time.
    """

    event: type[Event]
    within: float
    every: float
    times: int
    unless: tuple[type[Event], ...]
    grace: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The handler is called with many events at once.

    Attributes:
        max_size: how many at most.
        max_age: seconds that the first of them waits at most.
        per: whether a batch holds events of one partition, or of one key.
    """

    max_size: int
    max_age: float
    per: Literal["partition", "key"]


Rule: TypeAlias = "Compensation | Join | Deadline | Batch"


@dataclass(frozen=True, kw_only=True)
class Handler:
    """One declared handler of a service.

    Attributes:
        service, name: together its identity in event ids, dead letters and the choreography.
        function: what the user wrote.
        consumes: the event classes that it is called with, or that its rule looks at.
        emits: what its return annotation declares.
        takes_context: whether it has `ctx` as its last parameter.
        is_async: `async def` runs on the event loop, `def` in a worker thread.
        timeout: seconds after which a call is given up.
        ordered: whether a key's events wait while one of them is being retried or is a dead letter.
        rule: when it is called; None: with each event by itself.
    """

    service: str
    name: str
    function: Callable[..., Any]
    consumes: tuple[type[Event], ...]
    emits: Emits
    takes_context: bool
    is_async: bool
    retry: Retry
    timeout: float
    ordered: bool
    rule: Rule | None = None

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"
