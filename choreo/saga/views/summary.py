"""What is said of a saga before anything else: how it is and why, since when, and what to search traces for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from choreo.saga.model import Saga
from choreo.saga.views.lines import STATE_STYLES, Line, Style, counted, emitter_of, lasting, line, moment, service_of

_TRACES = 5
"""So many trace ids are shown; JSON has all."""


def traces(saga: Saga) -> Sequence[str]:
    """The trace ids of a saga, each once, in the order of its events."""
    return list(dict.fromkeys(event.trace_id for event in saga.events if event.trace_id))


def services(saga: Saga) -> Sequence[str]:
    """Who has emitted an event of it or has something to do about one, each once."""
    emitters = [emitter_of(event) for event in saga.events]
    return list(dict.fromkeys([*emitters, *(service_of(duty.handler) for duty in saga.duties)]))


def open_letters(saga: Saga) -> Sequence[str]:
    """The ids of its open dead letters."""
    return [duty.letter for duty in saga.duties if duty.status == "dead"]


def lines(saga: Saga, *, now_ms: int, as_of: bool = False) -> list[Line]:
    """The first lines about a saga.

    Args:
        as_of: whether `now_ms` is a moment in the past that was asked for.
    """
    style = STATE_STYLES[saga.state]
    name = " ".join(filter(None, [saga.type or "a saga without its first event", saga.key]))
    said = [line((name, "strong"), "  ", (saga.state.upper(), style), f"  {saga.reason}")]
    said += [_told("as of", moment(now_ms), "warn")] if as_of else []
    said += [_told("saga", saga.id), _told("started", _started(saga, now_ms))]
    said += (
        [_told("has", f"{counted(len(saga.events), 'event')} of {', '.join(services(saga))}")] if saga.events else []
    )
    said += [_told("in saga", saga.parent)] if saga.parent else []
    found = traces(saga)
    more = f" and {len(found) - _TRACES} more" if len(found) > _TRACES else ""
    said += [_told("traces" if len(found) > 1 else "trace", ", ".join(found[:_TRACES]) + more)] if found else []
    said += [_told("letters", ", ".join(open_letters(saga)), "bad")] if open_letters(saga) else []
    return said


def _started(saga: Saga, now_ms: int) -> str:
    if saga.ended_ms is not None:
        return f"{moment(saga.started_ms)}, took {lasting(saga.ended_ms - saga.started_ms)}"
    quiet = f"nothing new for {lasting(max(0, now_ms - saga.updated_ms))}"
    return f"{moment(saga.started_ms)}, {lasting(max(0, now_ms - saga.started_ms))} ago, {quiet}"


def _told(label: str, what: str, style: Style = "") -> Line:
    return line((f"{label:<9}", "dim"), (what, style), hang=" " * 9)
