"""Where a saga's time went, one row a step. Pure.

Clocks place the bars and order nothing: rows are causes before effects, and a hop that would go back in time says so.

- in the broker: from when the event's producer says it was emitted to the time of its record. Kafka has a time of its own for
  records only in topics with `message.timestamp.type=LogAppendTime`; elsewhere it is the producer's, and this is 0.
- until handled: from the record's time to the first event that came of it: the wait in the queue and the handler's own work. What the handler took of it
  alone, its span or `messaging.process.duration` says: no record does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from choreo.saga.model import Duty, DutyStatus, Saga, SagaEvent
from choreo.saga.views.causes import Causes
from choreo.saga.views.lines import Line, Span, lasting, line

_BAR, _LEAST_BAR, _NAMES, _LEAST_NAME = 40, 10, 48, 12
_OTHER, _BROKER_COLUMN, _ROOMY = 16, 12, 72
"""Columns beside name and bar, those of the time in the broker, and how wide it must be for that."""
_BROKER, _HANDLED, _OPEN, _EMPTY = "░", "█", "▒", " "


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One handler's call with one event.

    Attributes:
        starts_ms: when the event was emitted, after the saga's start.
        broker_ms: from there until it lay in the log.
        handled_ms: from there until the first event that came of it was emitted; None if none did (yet).
        critical: whether the saga's last event hangs on it.
        skew: whether a clock contradicts the order of causes.
    """

    event: str
    type: str
    handler: str
    status: DutyStatus
    emitted: tuple[str, ...]
    starts_ms: int
    broker_ms: int
    handled_ms: int | None
    attempts: int
    critical: bool
    skew: bool


def steps(saga: Saga) -> list[Step]:
    """All steps of a saga, causes before effects."""
    causes = Causes(saga)
    critical = _critical(saga, causes)
    return [
        _step(event, duty, causes, critical)
        for event in saga.events
        for duty in causes.duties.get(event.id, ())
        if duty.status not in {"stopped", "unneeded"}
    ]


def _step(event: SagaEvent, duty: Duty, causes: Causes, critical: frozenset[str]) -> Step:
    results = [result for id_ in duty.emitted if (result := causes.by_id.get(id_)) and result.cause == event.id]
    first = min((result.produced_ms for result in results), default=None)
    broker, handled = event.written_ms - event.produced_ms, None if first is None else first - event.written_ms
    return Step(
        event=event.id,
        type=event.type,
        handler=duty.handler,
        status=duty.status,
        emitted=tuple(result.type for result in results),
        starts_ms=event.produced_ms - causes.saga.started_ms,
        broker_ms=broker,
        handled_ms=handled,
        attempts=duty.attempts,
        critical=any(result.id in critical for result in results),
        skew=broker < 0 or (handled is not None and handled < 0),
    )


def _critical(saga: Saga, causes: Causes) -> frozenset[str]:
    """The saga's last event and all its causes."""
    found: set[str] = set()
    event = max(saga.events, key=lambda one: (one.produced_ms, one.id), default=None)
    while event is not None and event.id not in found:
        found.add(event.id)
        event = causes.by_id.get(event.cause or "")
    return frozenset(found)


class _Fit(NamedTuple):
    """How a timeline fits: how wide names and bars are, whether there is a column for the broker, and all the time there was."""

    name: int
    bar: int
    broker: bool
    whole: int


def lines(saga: Saga, *, width: int = 100) -> list[Line]:
    """The timeline as text: names, times, and a bar of all the time there was."""
    shown = steps(saga)
    if not shown:
        return [line(("no step is known", "dim"))]
    fit = _fit(shown, width)
    broker = f"{'in broker':>10}  " if fit.broker else ""
    head = f"  {'step':<{fit.name}}  {broker}{'handled in':>10}  {_ruler(fit.whole, fit.bar)}"
    legend = f"{_HANDLED} waiting and handled   {_OPEN} not known   > the longest way"
    legend = f"{_BROKER} in the broker   {legend}" if fit.broker else legend
    return [line((head, "strong")), *(_line(step, fit) for step in shown), line((legend, "dim"))]


def _fit(shown: Sequence[Step], width: int) -> _Fit:
    """Where records have no time of the broker's own, it has no column; nor where there is no room."""
    broker = any(step.broker_ms for step in shown) and width >= _ROOMY
    other = _OTHER + (_BROKER_COLUMN if broker else 0)
    name = max(_LEAST_NAME, min(_NAMES, max(len(_name(step)) for step in shown), width - other - _LEAST_BAR))
    bar = max(_LEAST_BAR, min(_BAR, width - name - other))
    return _Fit(name, bar, broker, max(1, *(step.starts_ms + _lasted(step) for step in shown)))


def _lasted(step: Step) -> int:
    return max(0, step.broker_ms) + max(0, step.handled_ms or 0)


def _name(step: Step) -> str:
    return f"{step.type} {step.handler}"


def _ruler(whole: int, bar: int) -> str:
    end = lasting(whole)
    return f"0{end:>{max(0, bar - 1)}}"


def _line(step: Step, fit: _Fit) -> Line:
    label = _name(step)
    label = label if len(label) <= fit.name else label[: fit.name - 1] + "…"
    broker = f"{lasting(step.broker_ms):>10}  " if fit.broker else ""
    handled = "-" if step.handled_ms is None else lasting(step.handled_ms)
    marks: list[Span] = [(f"  {step.attempts} attempts", "warn")] if step.attempts > 1 else []
    marks += [("  clock skew", "warn")] if step.skew else []
    marks += [(f"  {step.status}", "warn")] if step.status not in {"done", "pending", "armed", "gathering"} else []
    return line(
        ("> " if step.critical else "  ", "strong"),
        f"{label:<{fit.name}}  {broker}{handled:>10}  ",
        (_bar(step, fit.bar, fit.whole), "good" if step.critical else ""),
        *marks,
        hang="    ",
    )


def _bar(step: Step, bar: int, whole: int) -> str:
    def at(ms: int) -> int:
        return max(0, min(bar, round(ms * bar / whole)))

    begin = min(at(step.starts_ms), bar - 1)
    written = max(begin, at(step.starts_ms + step.broker_ms)) if step.broker_ms > 0 else begin
    if step.handled_ms is None:
        return _EMPTY * begin + (_BROKER * (written - begin) + _OPEN)[: bar - begin].ljust(bar - begin)
    end = max(begin + 1, at(step.starts_ms + _lasted(step)))
    drawn = _BROKER * (written - begin) + _HANDLED * (end - max(begin, written))
    return (_EMPTY * begin + (drawn or _HANDLED)).ljust(bar)


def slowest(shown: Sequence[Step]) -> Step | None:
    """The step on the longest way that took the longest."""
    return max((step for step in shown if step.critical), key=_lasted, default=None)
