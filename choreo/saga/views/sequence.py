"""A saga as a sequence: one lifeline a service, each event an arrow from who emitted it to who has something to do about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from choreo.saga.model import Duty, Saga, SagaEvent
from choreo.saga.views.causes import Causes
from choreo.saga.views.lines import DUTY_MARKS, Line, Span, emitter_of, lasting, line, service_of

_LEAST_COLUMN, _NAMED_COLUMN, _MOST_COLUMN, _LABEL, _LEAST_LABEL = 4, 9, 16, 34, 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrow:
    """One event on its way.

    Attributes:
        to: the services that have something to do about it.
        troubles: what went wrong there, by service: attempts that failed, dead letters.
    """

    event: str
    type: str
    sender: str
    to: tuple[str, ...]
    at_ms: int
    copies: int
    failure: bool
    ends: str
    undoes: str
    oddity: str
    troubles: tuple[tuple[str, str, str], ...]


def lifelines(arrows: Sequence[Arrow]) -> list[str]:
    """Who takes part, in the order in which they come in."""
    return list(dict.fromkeys(name for arrow in arrows for name in (arrow.sender, *arrow.to)))


def arrows(saga: Saga) -> list[Arrow]:
    """All events of a saga as arrows, causes before effects."""
    causes = Causes(saga)
    return [_arrow(event, causes) for event, _ in causes.walk()]


def _arrow(event: SagaEvent, causes: Causes) -> Arrow:
    duties = causes.duties.get(event.id, ())
    undone = causes.by_id.get(event.compensates or "")
    return Arrow(
        event=event.id,
        type=event.type or "unknown type",
        sender=emitter_of(event),
        to=tuple(dict.fromkeys(service_of(duty.handler) for duty in duties)),
        at_ms=event.produced_ms - causes.saga.started_ms,
        copies=len(event.places),
        failure=event.failure,
        ends=event.ends or "",
        undoes=(undone.type if undone else event.compensates) or "",
        oddity=event.oddity,
        troubles=tuple((service_of(duty.handler), duty.status, said) for duty in duties if (said := _trouble(duty))),
    )


def _trouble(duty: Duty) -> str:
    """What goes onto the lifeline of who was called; empty if nothing went wrong."""
    words = {"dead": "gave up", "discarded": "given up", "retrying": "is called again"}.get(duty.status, "")
    times = f"{duty.attempts} attempts" if duty.attempts > 1 else ""
    if not (words or times):
        return ""
    return f"{duty.handler}: {', '.join(filter(None, [words, times, duty.error]))}"


def lines(saga: Saga, *, width: int = 100) -> list[Line]:
    """The sequence as text; where the names do not fit above their lifelines, numbers stand for them."""
    shown = arrows(saga)
    if not shown:
        return [line(("no event is known", "dim"))]
    names = lifelines(shown)
    column = max(_LEAST_COLUMN, min(_MOST_COLUMN, max(map(len, names)) + 2, (width - _LABEL) // len(names)))
    numbered = max(map(len, names)) + 1 > column and column < _NAMED_COLUMN
    heads = [str(number) if numbered else _cut(name, column - 1) for number, name in enumerate(names, 1)]
    found = [line((f"{number:>3} ", "strong"), name) for number, name in enumerate(names, 1)] if numbered else []
    found.append(line(("".join(f"{head:<{column}}" for head in heads), "strong")))
    for arrow in shown:
        found.append(_drawn(arrow, names, column))
        found += [_trouble_line(trouble, names, column) for trouble in arrow.troubles]
    if width - column * len(names) >= _LEAST_LABEL:
        return found
    return [part for each in found for part in _apart(each)]


def _apart(whole: Line) -> list[Line]:
    """A row whose words go below the lifelines: beside them there is no room."""
    return [Line((), lead=whole.lead), whole._replace(lead="   ", hang="     ")] if whole.lead else [whole]


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _drawn(arrow: Arrow, names: list[str], column: int) -> Line:
    places = {names.index(name) for name in arrow.to}
    sender = names.index(arrow.sender)
    cells = _cells(sender, places, len(names), column)
    return line(*_label(arrow, own=sender in places), lead=cells, hang=_lives(len(names), column))


def _cells(sender: int, to: set[int], count: int, column: int) -> str:
    """One row over all lifelines: a dot where the event leaves, arrow heads where it arrives, lines between."""
    first, last = min({sender, *to}), max({sender, *to})
    cells = []
    for place in range(count):
        mark = "●" if place == sender else ("▶" if place > sender else "◀") if place in to else "┼"
        inside = first <= place <= last
        cells.append((mark if inside else "│") + ("─" if first <= place < last else " ") * (column - 1))
    return "".join(cells)


def _label(arrow: Arrow, *, own: bool) -> list[Span]:
    said: list[Span] = [(f" {arrow.type}", "bad" if arrow.failure or arrow.oddity else "strong")]
    said += [(f" x{arrow.copies}", "dim")] if arrow.copies > 1 else []
    said += [(" to itself too", "dim")] if own else []
    said += [(f" ↶ undoes {arrow.undoes}", "warn")] if arrow.undoes else []
    said += [(f" ends it: {arrow.ends}", "good" if arrow.ends == "completed" else "bad")] if arrow.ends else []
    said += [(f" ~ {arrow.oddity}", "bad")] if arrow.oddity else []
    return [*said, (f"  {'' if arrow.at_ms < 0 else '+'}{lasting(arrow.at_ms)}", "dim")]


def _trouble_line(trouble: tuple[str, str, str], names: list[str], column: int) -> Line:
    service, status, said = trouble
    mark, style = DUTY_MARKS[status]  # type: ignore[index] # of a duty
    mark, style = ("↻", "warn") if status == "done" else (mark, style)
    place = names.index(service)
    cells = _lives(place, column) + mark.ljust(column) + _lives(len(names) - place - 1, column)
    return line((f" {said}", style), lead=cells, hang=_lives(len(names), column))


def _lives(count: int, column: int) -> str:
    return "│".ljust(column) * count
