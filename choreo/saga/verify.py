"""The laws of choreography, checked over one saga as the log has it. Pure.

What is found here is not a state that passes: it is something that happened and must not happen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from choreo.saga.fold.emitters import HASH, is_torn, is_unexplained
from choreo.saga.model import Saga, SagaEvent
from choreo.wire.ids import derive_event_id

Code: TypeAlias = Literal["V01", "V02", "V03", "V04", "V05", "V06", "V07", "V08", "V09"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A law that was broken.

    Attributes:
        code: which law, see `LAWS`.
        words: what happened, in one sentence.
        event: the id of the event that shows it; empty if none does by itself.
        handler: the id of the handler that did it; empty if that is not known.
    """

    code: Code
    words: str
    event: str = ""
    handler: str = ""


LAWS: dict[Code, str] = {
    "V01": "a handler emits only what it declares",
    "V02": "a saga has one outcome",
    "V03": "nothing is undone before or without a failure",
    "V04": "each effect of a failed saga is undone",
    "V05": "an effect is undone once",
    "V06": "each event has its cause in the saga",
    "V07": "an effect lies behind its cause in one partition",
    "V08": "derived event ids are those that follow from their causes",
    "V09": "a handler takes effect once for one event",
}


def verify(saga: Saga) -> list[Violation]:
    """The laws that were broken, in the order of `LAWS`, then of events."""
    by_id = {event.id: event for event in saga.events}
    return [violation for check in _CHECKS for violation in check(saga, by_id)]


Events: TypeAlias = dict[str, SagaEvent]


def _undeclared(saga: Saga, _: Events) -> Iterator[Violation]:
    for event in saga.events:
        if is_unexplained(event):
            words = f"{event.type or 'an event without a type'} of {event.source} is not declared: {event.oddity}"
            yield Violation(code="V01", words=words, event=event.id)


def _outcomes(saga: Saga, _: Events) -> Iterator[Violation]:
    ends = {event.ends: event for event in reversed(saga.events) if event.ends is not None}
    if len(ends) > 1:
        told = " and ".join(
            f"{end} ({event.type} of {event.handler or event.source})" for end, event in sorted(ends.items())
        )
        last = max(ends.values(), key=lambda event: (event.produced_ms, event.places))
        yield Violation(code="V02", words=f"it ended as {told}", event=last.id, handler=last.handler or "")


def _unasked(saga: Saga, by_id: Events) -> Iterator[Violation]:
    for event in saga.events:
        cause = by_id.get(event.cause or "")
        if event.compensates is not None and cause is not None and not cause.failure:
            words = f"{event.type} undoes event {event.compensates}, and its cause {cause.type} is no failure"
            yield Violation(code="V03", words=words, event=event.id, handler=event.handler or "")


def _left(saga: Saga, _: Events) -> Iterator[Violation]:
    """What stays though the saga has failed and has come to rest."""
    if saga.ended_ms is None:
        return
    for line in saga.ledger:
        if line.status in {"owed", "impossible", "uncovered"}:
            why = (
                "no compensation is declared for it"
                if line.status == "uncovered"
                else f"{line.compensation} has not undone it"
            )
            words = f"{line.type} of {line.step} stays in a failed saga: {why}"
            yield Violation(code="V04", words=words, event=line.event, handler=line.compensation or line.step)


def _twice_undone(saga: Saga, _: Events) -> Iterator[Violation]:
    """One call may emit several events; what undoes an effect for another cause, or in another handler, is another call."""
    calls: dict[str, tuple[str | None, str | None]] = {}
    for event in saga.events:
        if event.compensates is None:
            continue
        call = event.handler, event.cause
        first = calls.setdefault(event.compensates, call)
        if first != call:
            words = f"{event.type} undoes event {event.compensates}, which {first[0] or 'somebody'} had undone before"
            yield Violation(code="V05", words=words, event=event.id, handler=event.handler or "")


def _causation(saga: Saga, by_id: Events) -> Iterator[Violation]:
    for event in saga.events:
        if event.cause == event.id:
            yield Violation(code="V06", words=f"{event.type} names itself as its cause", event=event.id)
        elif (
            event.cause is not None
            and event.cause not in by_id
            and not _begins(event, saga)
            and saga.state != "running"
        ):
            words = f"{event.type} names event {event.cause} as its cause, and that is not in the saga"
            yield Violation(code="V06", words=words, event=event.id, handler=event.handler or "")


def _begins(event: SagaEvent, saga: Saga) -> bool:
    """Whether it is the first of a saga that was started in another one."""
    return event.parent is not None or event.id == saga.id


def _backwards(saga: Saga, by_id: Events) -> Iterator[Violation]:
    """Of a cause that lies in several partitions nobody knows which of its records was handled."""
    for event in saga.events:
        cause = by_id.get(event.cause or "")
        if cause is None or len({place.of for place in cause.places}) > 1:
            continue
        at = next((place for place in event.places if place.of == cause.places[0].of), None)
        if at is not None and at < cause.places[0]:
            words = f"{event.type} lies at {at}, before its cause {cause.type} at {cause.places[0]}"
            yield Violation(code="V07", words=words, event=event.id, handler=event.handler or "")


def _effects(saga: Saga, by_id: Events) -> Iterator[Violation]:
    """Ids that do not follow from their cause, and what handlers did once more than once."""
    groups: dict[tuple[str, str], list[SagaEvent]] = defaultdict(list)
    for event in saga.events:
        if event.handler is not None and event.cause in by_id and event.cause != event.id and not _begins(event, saga):
            groups[event.handler, event.cause].append(event)
    undone = defaultdict(list)
    for line in saga.ledger:
        undone[line.compensation].append(line.event)
    twice: list[Violation] = []
    for (handler, cause), events in groups.items():
        strangers = _strangers(handler, cause, events, undone[handler])
        for event in strangers:
            if _is_derived(event.id):
                words = f"the id of {event.type} is not one that {handler} derives from {by_id[cause].type}"
                yield Violation(code="V08", words=words, event=event.id, handler=handler)
        if strangers and len(strangers) < len(events):
            event = strangers[0]
            words = f"{handler} took effect twice for one {by_id[cause].type}: {event.type} is not of the call that emitted the rest"
            twice.append(Violation(code="V09", words=words, event=event.id, handler=handler))
    yield from twice
    for event in saga.events:
        if is_torn(event):
            yield Violation(
                code="V09", words=f"{event.type}: {event.oddity}", event=event.id, handler=event.handler or ""
            )


_MORE = 8
"""So many events of a call are looked at beyond those that are there, and so many calls of a deadline."""


def _is_derived(event_id: str) -> bool:
    """Whether it is a UUIDv8."""
    return len(event_id) == 36 and event_id[HASH] == "8" and event_id[HASH - 1] == "-"  # noqa: PLR2004 - RFC 9562


def _strangers(handler: str, cause: str, events: list[SagaEvent], undone: Iterable[str]) -> list[SagaEvent]:
    """Those of a handler's events for a cause that no call of it emits, by their ids."""
    service, _, name = handler.rpartition(".")
    most = len(events) + _MORE

    def ids(scope: str) -> set[str]:
        derived = (derive_event_id(cause, service, name + scope, number, time_ms=0) for number in range(most))
        return {each[HASH:] for each in derived}

    compensates = {event.compensates for event in events if event.compensates is not None}
    left = events
    for scope in ("", *(f"/{each}" for each in compensates), *(f"#{number}" for number in range(2, most + 1))):
        if left:
            known = ids(scope)
            left = [event for event in left if event.id[HASH:] not in known]
    for effect in undone if left else ():  # a compensation that has declared a failure does not say what it was to undo
        known = ids(f"/{effect}")
        left = [event for event in left if event.id[HASH:] not in known]
    return left


_CHECKS: tuple[Callable[[Saga, Events], Iterator[Violation]], ...] = (
    *(_undeclared, _outcomes, _unasked, _left, _twice_undone, _causation, _backwards, _effects),
)
