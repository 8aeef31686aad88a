"""A saga as its record tells it: plain data, made by the fold, shown by everybody else. Times are ms since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from choreo.dlq.letters import Place
from choreo.events import Outcome
from choreo.log.port import TopicPartition

State: TypeAlias = Literal[
    "running",
    "waiting",
    "late",
    "stuck",
    "compensating",
    "completed",
    "compensated",
    "partially-compensated",
    "failed",
    "diverged",
    "conflict",
    "truncated",
]
"""How a saga is; see `choreo.saga.fold` for what decides."""

DutyStatus: TypeAlias = Literal[
    "pending", "retrying", "gathering", "armed", "done", "stopped", "dead", "discarded", "unneeded"
]
EffectStatus: TypeAlias = Literal["kept", "owed", "done", "impossible", "uncovered"]


class Surroundings(NamedTuple):
    """What is known beside a saga's own records.

    Attributes:
        now_ms: the moment that is asked about.
        committed: the next offset that a group has to read, by group and partition; one without a commit is left out.
        beginnings: the first offset that the log still keeps, by partition.
        reached_ms: everything that was written before has been read; a cause that is missing and older is gone for good.
    """

    now_ms: int
    committed: Mapping[tuple[str, TopicPartition], int]
    beginnings: Mapping[TopicPartition, int]
    reached_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SagaEvent:
    """One event of a saga.

    Attributes:
        places: where it lies; more than one if it was published again. In order of (topic, partition, offset).
        handler: the id of the handler that emitted it; None if it came from outside, or nothing declared explains it.
        compensates: the event whose effect was undone when it was emitted.
        parent: the saga in which this one was started; on its first event.
        ends: the outcome that it gives its saga.
        trace_id: of its W3C trace; empty if it has none.
        oddity: what is not as declared or not as choreo writes it, in words; empty if nothing is.
    """

    id: str
    type: str
    source: str
    cause: str | None
    compensates: str | None
    parent: str | None
    places: tuple[Place, ...]
    produced_ms: int
    written_ms: int
    key: str
    handler: str | None
    failure: bool
    ends: Outcome | None
    trace_id: str
    oddity: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Duty:
    """What one handler has to do about one event.

    Attributes:
        handler: its id, `service.name`.
        event: the event's id.
        status: `pending`: not handled yet. `retrying`: it failed, and is called again at `due_ms`. `gathering`: a join has
            the event and waits for more. `armed`: a deadline's timer is set for `due_ms`. `done`: handled. `stopped`: a timer or join that
            will not call any more. `dead`: a dead letter is open. `discarded`: a dead letter was given up. `unneeded`:
            nothing to do (a compensation whose step has emitted nothing, a second failure, a step of a saga that had failed).
        emitted: ids of the events that came of it.
        attempts: how often it was called for sure; 0 if the log does not tell.
        error: the last error, as `Type: message`; empty if there was none.
        letter: the id of its last dead letter; empty if there is none.
        redrives: how often it was redriven.
    """

    handler: str
    event: str
    status: DutyStatus
    emitted: tuple[str, ...] = ()
    attempts: int = 0
    due_ms: int | None = None
    error: str = ""
    letter: str = ""
    redrives: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """A line of the ledger: an event that a step has emitted, and what undoes it.

    Attributes:
        step: the id of the handler that emitted it.
        compensation: the id of the handler that undoes it; None if none is declared.
        status: `kept`: nothing asks to undo it. `owed`: it is to be undone. `done`: it is undone. `impossible`: it was to be
            undone, and that was given up. `uncovered`: its saga has failed, and no compensation is declared.
        failure: the id of the first failure that asks to undo it.
        undone_by: the ids of the events that the compensation emitted.
    """

    event: str
    type: str
    step: str
    compensation: str | None
    status: EffectStatus
    failure: str | None = None
    undone_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Something that is still to come.

    Attributes:
        what: the types of the events that may come; none if only the handling is expected.
        handler: the id of who owes it; None if it comes from outside.
        until_ms: when a deadline ends the wait; None if nothing does.
        because: why it is expected, in words.
    """

    what: tuple[str, ...]
    handler: str | None
    until_ms: int | None
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Saga:
    """A saga, as it was at one moment.

    Attributes:
        id: the correlation id.
        type: the type of its first event; empty if that is not there.
        key: the business key: that of its first event.
        reason: one line that says why it is in this state.
        events: causes before effects; beside each other by (topic, partition, offset).
        duties: by event, in the order of events, then by handler.
        expected: what is still to come; empty at rest.
        started_ms, updated_ms: when its first and its last event were produced (the last also: failed or redriven).
        ended_ms: when it came to rest; None if it has not.
        parent: the saga in which it was started.
        changes_ms: when the state may change though nothing comes, if all that was written by then has been read; None if it
            does not.
    """

    id: str
    type: str
    key: str
    state: State
    reason: str
    outcome: Literal["completed", "failed", "conflict"] | None
    events: tuple[SagaEvent, ...]
    duties: tuple[Duty, ...]
    ledger: tuple[Effect, ...]
    expected: tuple[Expected, ...]
    started_ms: int
    updated_ms: int
    ended_ms: int | None
    parent: str | None
    changes_ms: int | None
