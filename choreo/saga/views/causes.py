"""The causal shape of a saga: what came of what. Pure; no recursion, whatever the depth of a saga."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from choreo.saga.model import Duty, Saga, SagaEvent

AT_REST = frozenset({"done", "stopped", "unneeded"})
"""Duties that nobody needs to look at."""


@dataclass(frozen=True)
class Causes:
    """A saga's events by what caused them.

    Attributes:
        joined: by the id of a join, the types that it waits for. What it emits then stands below the event whose type comes
            first in the alphabet, not below the one that happened to come last: so that two sagas can be compared.
    """

    saga: Saga
    joined: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> Mapping[str, SagaEvent]:
        """Events by id."""
        return {event.id: event for event in self.saga.events}

    @cached_property
    def duties(self) -> Mapping[str, Sequence[Duty]]:
        """Duties by their event's id."""
        found: dict[str, list[Duty]] = {}
        for duty in self.saga.duties:
            found.setdefault(duty.event, []).append(duty)
        return found

    @cached_property
    def effects(self) -> Mapping[str | None, Sequence[SagaEvent]]:
        """Events by their cause; None: those without one that is there."""
        found: dict[str | None, list[SagaEvent]] = {}
        for event in self.saga.events:
            cause = self._cause(event)
            found.setdefault(cause if cause in self.by_id else None, []).append(event)
        found.setdefault(None, []).extend(self._in_circles(found))
        return found

    def _cause(self, event: SagaEvent) -> str | None:
        waits_for = self.joined.get(event.handler or "")
        if waits_for is None:
            return event.cause
        return next((self._first[name] for name in sorted(waits_for) if name in self._first), event.cause)

    @cached_property
    def _first(self) -> Mapping[str, str]:
        """The first event of each type."""
        return {event.type: event.id for event in reversed(self.saga.events)}

    def _in_circles(self, effects: Mapping[str | None, Sequence[SagaEvent]]) -> Iterator[SagaEvent]:
        """Events that cause each other, which no honest producer writes: the first of each circle counts as without a cause."""
        reached: set[str] = set()
        self._reach(effects.get(None, ()), effects, reached)
        for event in self.saga.events:
            if event.id not in reached:
                self._reach([event], effects, reached)
                yield event

    def _reach(
        self, starts: Sequence[SagaEvent], effects: Mapping[str | None, Sequence[SagaEvent]], reached: set[str]
    ) -> None:
        ahead = list(starts)
        while ahead:
            event = ahead.pop()
            if event.id not in reached:
                reached.add(event.id)
                ahead += effects.get(event.id, ())

    @cached_property
    def below(self) -> Mapping[str, int]:
        """How many events have come of each, directly or not."""
        found = dict.fromkeys(self.by_id, 0)
        for event, depth in reversed(list(self.walk())):
            if depth:
                found[str(event.cause)] += 1 + found[event.id]
        return found

    @cached_property
    def troubled(self) -> frozenset[str]:
        """Events that are not as usual, or below which something is not."""
        found: set[str] = set()
        for event, depth in reversed(list(self.walk())):
            if event.id in found or self._unusual(event):
                found.add(event.id)
                found |= {str(event.cause)} if depth else set()
        return frozenset(found)

    def _unusual(self, event: SagaEvent) -> bool:
        odd = event.failure or event.ends or event.oddity or event.compensates or len(event.places) > 1
        return bool(odd) or any(
            duty.status not in AT_REST or duty.error or duty.attempts > 1 for duty in self.duties.get(event.id, ())
        )

    def walk(self) -> Iterator[tuple[SagaEvent, int]]:
        """All events, each behind its cause, with how many causes it has above it. A circle is walked once."""
        seen: set[str] = set()
        ahead = [(event, 0) for event in reversed(self.effects[None])]
        while ahead:
            event, depth = ahead.pop()
            if event.id in seen:
                continue
            seen.add(event.id)
            yield event, depth
            ahead += [(effect, depth + 1) for effect in reversed(self.effects.get(event.id, ()))]
