"""The shapes of answers that are not a shape of `choreo.saga` itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from choreo.saga.model import Saga, SagaEvent, State
from choreo.saga.outcome import Ending
from choreo.saga.questions import Told
from choreo.saga.store.port import Summary
from choreo.saga.verify import Violation
from choreo.saga.views.diff import Pair
from choreo.saga.why import Group


class Listed(NamedTuple):
    """A saga of a list."""

    saga: str
    type: str
    key: str
    state: State
    reason: str
    outcome: Ending | None
    started_ms: int
    updated_ms: int
    ended_ms: int | None
    duration_ms: int
    events: int
    retries: int
    dead_letters: int
    owed: int
    services: tuple[str, ...]
    handlers: tuple[str, ...]
    waits_for: tuple[str, ...]
    until_ms: int | None
    error: str
    parent: str | None

    @classmethod
    def of(cls, row: Summary) -> Self:
        """What the store's row says."""
        told: dict[str, Any] = row._asdict() | {"duration_ms": row.duration_ms}
        return cls(**{name: told[name] for name in cls._fields})


class ListAnswer(NamedTuple):
    """A page of sagas; `after` asks for the next one, null if there is none."""

    sagas: Sequence[Listed]
    after: str | None


class SagaAnswer(NamedTuple):
    """A saga at a moment; `others` could have been meant too, `notes` say what is not known."""

    saga: Saga
    now_ms: int
    traces: Sequence[str]
    others: tuple[str, ...]
    notes: tuple[str, ...]


class EventAnswer(NamedTuple):
    """An event and what its records say."""

    event: SagaEvent
    records: tuple[Told, ...]


class DiffAnswer(NamedTuple):
    """Two sagas, aligned by what caused what."""

    left: str
    right: str
    pairs: Sequence[Pair]


class WhyAnswer(NamedTuple):
    """Why a saga is as it is, in plain sentences, and what to do."""

    saga: str
    state: State
    reason: str
    sentences: Sequence[str]
    groups: Mapping[str, Group]
    notes: tuple[str, ...]


class Broken(NamedTuple):
    """A saga in which laws were broken."""

    saga: str
    type: str
    key: str
    state: State
    found: Sequence[Violation]


class VerifyAnswer(NamedTuple):
    """How many sagas were checked, and those in which a law was broken."""

    checked: int
    broken: Sequence[Broken]

    @classmethod
    def of(cls, checked: int, broken: Iterable[tuple[Saga, Sequence[Violation]]]) -> Self:
        """What was found."""
        return cls(checked, [Broken(saga.id, saga.type, saga.key, saga.state, found) for saga, found in broken])
