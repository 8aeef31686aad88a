"""Checking a rule against the function it is declared on: compensations, joins, deadlines, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Signature
from typing import Any, Literal

from choreo.durations import Duration, seconds
from choreo.errors import DeclarationError
from choreo.events import Event, Failure, allows_none, is_event_class
from choreo.handler import Batch, Compensation, Deadline, Handler, Join
from choreo.signatures import accepted_events, check_accepts


def compensation(where: str, signature: Signature, step: Handler, on: Iterable[type[Failure]]) -> Compensation:
    """The rule of a compensation `(emitted, failure)`.

    Raises:
        DeclarationError: the step leaves nothing to undo, the parameters do not fit, or `on` names no failure.
    """
    failures = named_events(where, "on", on)
    if not failures:
        raise DeclarationError(f"{where} names no failure", remedy="write on=(SomeFailure,)")
    for event in failures:
        if not issubclass(event, Failure):
            raise DeclarationError(
                f"{where} is declared on={event.__name__}, which is no failure",
                why="only a failure makes a saga undo its steps",
                remedy=f"derive {event.__name__} from choreo.Failure, or react to it with @service.on",
            )
    if isinstance(step.rule, Compensation | Batch):
        what = "a compensation itself" if isinstance(step.rule, Compensation) else "a batch of many sagas"
        raise DeclarationError(f"{where} would undo {step}, which is {what}")
    emitted, failure = list(signature.parameters.values())[:2]
    undoable = tuple(event for event in step.emits.classes if not issubclass(event, Failure))
    taken, takes_list = accepted_events(emitted, undoable)
    if not taken:
        raise DeclarationError(
            f"{where} would undo {step}, which emits nothing that parameter {emitted.name!r} takes",
            why=f"it emits {_names(step.emits.classes)}",
            remedy="annotate the first parameter with what the step emits when it has taken effect",
        )
    if step.emits.many and not takes_list:
        raise DeclarationError(
            f"{where} would undo {step}, which may emit several events at once",
            remedy=f"let parameter {emitted.name!r} take list[{taken[0].__name__}]",
        )
    check_accepts(failure, failures, where)
    return Compensation(step=step.name, failures=failures, undoes=taken, takes_list=takes_list)  # type: ignore[arg-type] # checked above


def check_beside(where: str, one: Compensation, other_name: str, other: Compensation) -> None:
    """Check two compensations of one step: the first failure decides for the whole step.

    Raises:
        DeclarationError: together they would undo an event twice, or leave one.
    """
    same_events, same_failures = set(one.undoes) & set(other.undoes), set(one.failures) & set(other.failures)
    if same_events and same_failures:
        raise DeclarationError(
            f"{where} undoes {one.step} on {next(iter(same_failures)).__name__}, as {other_name} does",
            why="what a step did is undone once",
        )
    if set(one.undoes) != set(other.undoes) and set(one.failures) != set(other.failures):
        raise DeclarationError(
            f"{where} and {other_name} undo different events of {one.step} on different failures",
            why="the first failure decides for the whole step, and what the other undoes would stay",
            remedy="let both name the same failures in on=",
        )


def join(
    where: str,
    signature: Signature,
    events: Iterable[type[Event]],
    *,
    by: str | None,
    need: int | None,
    count: int | Callable[[Any], int] | None,
    unless: Iterable[type[Event]],
) -> Join:
    """The rule of a join `(one, two, …)`.

    Raises:
        DeclarationError: nothing could make it fire, or its parameters do not fit.
    """
    joined, ending = named_events(where, "join", events), named_events(where, "unless", unless)
    if not joined or (len(joined) == 1 and count is None):
        raise DeclarationError(
            f"{where} joins {_names(joined) or 'nothing'}",
            remedy="name two events or more, or how many of one: count=3; for one event alone write @service.on",
        )
    _check_count(where, joined, need, count)
    needed = len(joined) if need is None else need
    if not 1 <= needed <= len(joined):
        raise DeclarationError(f"{where} needs {need} of {len(joined)} events", remedy=f"need=1 to {len(joined)}")
    if both := set(joined) & set(ending):
        raise DeclarationError(
            f"{where} joins {_names(both)} and names it in unless=", remedy="leave out one of the two"
        )
    for event in (*joined, *ending) if by is not None else ():
        if by not in event.model_fields:
            raise DeclarationError(
                f"{where} joins by {by!r}, which {event.__name__} does not have",
                why="its events would never find each other",
                remedy="name a field that all of them have, or leave out by= to join by correlation id",
            )
        if by is not None and allows_none(event.model_fields[by].annotation):
            raise DeclarationError(
                f"{where} joins by {by!r}, which may be None in {event.__name__}",
                why="strangers would be joined",
                remedy="make the field one that is always filled",
            )
    for number, (event, parameter) in enumerate(zip(joined, signature.parameters.values(), strict=False)):
        is_list = count is not None and number == len(joined) - 1
        check_accepts(parameter, (event,), where, in_list=is_list, or_none=needed < len(joined))
    return Join(events=joined, by=by, need=needed, count=count, unless=ending)


def _check_count(
    where: str, joined: tuple[type[Event], ...], need: int | None, count: int | Callable[[Any], int] | None
) -> None:
    if count is None:
        return
    if need is not None:
        raise DeclarationError(f"{where} has need= and count=", remedy="name one of the two")
    if isinstance(count, int) and not isinstance(count, bool):
        if count < 1:
            raise DeclarationError(f"{where} gathers {count} events", remedy="count=1 or more")
    elif not callable(count):
        raise DeclarationError(f"{where} has count={count!r}", remedy="name a number, or a function of the first event")
    elif len(joined) == 1:
        raise DeclarationError(
            f"{where} would never know how many {_names(joined)} to gather",
            why="count= is a function, and there is no earlier event to ask",
            remedy=f"name the event that tells it first: join(SomeEvent, {_names(joined)}, count=...)",
        )


def deadline(
    where: str,
    signature: Signature,
    event: type[Event],
    *,
    within: Duration | None,
    every: Duration | None,
    times: int | None,
    unless: Iterable[type[Event]],
    grace: Duration,
) -> Deadline:
    """The rule of a deadline `(event)`.

    Raises:
        DeclarationError: no time is named, or reminders without an end.
    """
    named = named_events(where, "deadline", (event,))
    if within is None and every is None:
        raise DeclarationError(f"{where} names no time", remedy='write within="15m", or every="1d", times=3')
    if (every is None) != (times is None):
        raise DeclarationError(
            f"{where} names {'times' if every is None else 'every'}= alone",
            why="what is repeated has a pace and an end",
            remedy='write every="1d", times=3',
        )
    if times is not None and times < 1:
        raise DeclarationError(f"{where} is called {times} times", remedy="times=1 or more")
    pace = 0.0 if every is None else seconds(every)
    if every is not None and not pace:
        raise DeclarationError(f"{where} repeats every {every!r}", why="that is all at once")
    first = seconds(within) if within is not None else pace
    check_accepts(next(iter(signature.parameters.values())), named, where)
    ending = named_events(where, "unless", unless)
    return Deadline(event=event, within=first, every=pace, times=times or 1, unless=ending, grace=seconds(grace))


def batch(
    where: str,
    signature: Signature,
    events: tuple[type[Event], ...],
    *,
    max_size: int,
    max_age: Duration,
    per: Literal["partition", "key"],
) -> Batch:
    """The rule of a batch `(events)`.

    Raises:
        DeclarationError: a size or age that makes no batch, or a parameter that is no list of these events.
    """
    if max_size < 1:
        raise DeclarationError(f"{where} has max_size={max_size}", remedy="use 1 or more")
    if not seconds(max_age):
        raise DeclarationError(f"{where} has max_age={max_age!r}", why="every batch would hold one event")
    if per not in {"partition", "key"}:
        raise DeclarationError(f"{where} has per={per!r}", remedy='write per="partition" or per="key"')
    check_accepts(next(iter(signature.parameters.values())), events, where, in_list=True)
    return Batch(max_size=max_size, max_age=seconds(max_age), per=per)


def named_events(where: str, what: str, events: Iterable[type[Event]]) -> tuple[type[Event], ...]:
    """These classes, each once.

    Raises:
        DeclarationError: one of them is no event.
    """
    if isinstance(events, type):
        raise DeclarationError(f"{where} has {what}={events.__name__}", remedy=f"write {what}=({events.__name__},)")
    for event in events:
        if not is_event_class(event):
            raise DeclarationError(
                f"{where} is declared on {event!r}, which is no event",
                remedy="name a class that derives from choreo.Event with topic= and key=",
            )
    return tuple(dict.fromkeys(events))


def _names(events: Iterable[type[Event]]) -> str:
    return ", ".join(event.__name__ for event in events)
