"""A saga as a tree: each event below its cause, who handled it, and what is still to come of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from choreo.graph import Graph
from choreo.saga.model import Duty, Expected, Saga, SagaEvent
from choreo.saga.views.causes import AT_REST, Causes
from choreo.saga.views.lines import DUTY_MARKS, Line, Span, counted, lasting, line, moment

FOLD = 20
"""More siblings of one type than these are folded to one row."""
_SHORT = 8
"""So much of a dead letter's id is enough for `choreo dlq`."""
_DEEPEST = 24
"""So many levels are indented; what lies deeper says how deep it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the tree; rows come in order, causes before effects.

    Attributes:
        depth: 0 for the first event.
        kind: `event`; `duty`: handlers that did nothing visible (yet) with the event above; `ghost`: what may still come of
            that; `never`: what will not come any more; `fold`: siblings that are not shown one by one.
        event: the event's id; of other kinds that of the event above.
        handlers: who emitted the event, or whose duty it is.
        types: the event's type; what is expected.
        notes: what is said besides, in words.
    """

    depth: int
    kind: Literal["event", "duty", "ghost", "never", "fold"]
    event: str = ""
    handlers: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    status: str = ""
    at_ms: int = 0
    copies: int = 1
    failure: bool = False
    ends: str = ""
    undeclared: bool = False
    undoes: str = ""
    notes: tuple[str, ...] = ()


class _Ahead(NamedTuple):
    """What is still to be shown at a depth: an event with all that is below it, or a finished row."""

    depth: int
    what: SagaEvent | Row


def rows(saga: Saga, graph: Graph, *, fold: int = FOLD) -> list[Row]:
    """The tree of a saga, in the order of its rows.

    Args:
        fold: more siblings of one type than these are one row, unless something below them is not as usual.
    """
    causes = Causes(saga)
    found: list[Row] = []
    seen: set[str] = set()
    ahead = [*reversed([*_siblings(causes.effects[None], 0, causes, fold), *_elsewhere(saga, causes)])]
    while ahead:
        depth, what = ahead.pop()
        if isinstance(what, Row):
            found.append(what)
        elif what.id not in seen:
            seen.add(what.id)
            found.append(_event(what, depth, causes))
            below = [_Ahead(each.depth, each) for each in _duties(what, depth + 1, causes, graph)]
            below += _siblings(causes.effects.get(what.id, ()), depth + 1, causes, fold)
            ahead += reversed(below)
    return found


def _siblings(events: Sequence[SagaEvent], depth: int, causes: Causes, fold: int) -> Iterator[_Ahead]:
    for (type_name, handler), group in _by(events):
        usual = [event for event in group if event.id not in causes.troubled]
        hidden = {event.id for event in usual[1:]} if len(usual) > fold else set()
        yield from (_Ahead(depth, event) for event in group if event.id not in hidden)
        if hidden:
            more = sum(causes.below[id_] for id_ in hidden)
            notes = (f"{counted(more, 'event')} below them", "nothing unusual") if more else ("nothing unusual",)
            handlers = (handler,) if handler else ()
            cause = group[0].cause or ""
            folded = Row(
                depth=depth,
                kind="fold",
                event=cause,
                handlers=handlers,
                types=(type_name,),
                copies=len(hidden),
                notes=notes,
            )
            yield _Ahead(depth, folded)


def _by(events: Sequence[SagaEvent]) -> Iterator[tuple[tuple[str, str], list[SagaEvent]]]:
    """Siblings by type and handler, in the order in which these come first."""
    found: dict[tuple[str, str], list[SagaEvent]] = {}
    for event in events:
        found.setdefault((event.type, event.handler or ""), []).append(event)
    return iter(found.items())


def _event(event: SagaEvent, depth: int, causes: Causes) -> Row:
    undone = causes.by_id.get(event.compensates or "")
    duty = next((one for one in causes.duties.get(event.cause or "", ()) if event.id in one.emitted), None)
    notes = [f"{duty.attempts} attempts"] if duty and duty.attempts > 1 else []
    notes += [f"redriven {duty.redrives}x"] if duty and duty.redrives else []
    notes += [f"cause {event.cause} is not here"] if event.cause and event.cause not in causes.by_id else []
    return Row(
        depth=depth,
        kind="event",
        event=event.id,
        handlers=(event.handler or event.source,),
        types=(event.type or "unknown type",),
        at_ms=event.produced_ms - causes.saga.started_ms,
        copies=len(event.places),
        failure=event.failure,
        ends=event.ends or "",
        undeclared=bool(event.oddity),
        undoes=(undone.type if undone else event.compensates) or "",
        notes=(*notes, *filter(None, [event.oddity])),
    )


def _duties(event: SagaEvent, depth: int, causes: Causes, graph: Graph) -> Iterator[Row]:
    """Handlers of an event that have emitted nothing that lies below it."""
    quiet = [duty for duty in causes.duties.get(event.id, ()) if not _shown(duty, event, causes)]
    for status, group in groupby(sorted(quiet, key=lambda one: (one.status not in AT_REST, one.status)), _status):
        together = list(group)
        if status in AT_REST:
            handlers = tuple(duty.handler for duty in together)
            yield Row(depth=depth, kind="duty", event=event.id, handlers=handlers, status=status)
            continue
        for duty in together:
            yield Row(
                depth=depth, kind="duty", event=event.id, handlers=(duty.handler,), status=status, notes=_open(duty)
            )
            node = graph.handler.get(duty.handler)
            if node is not None and node.emits:
                kind: Literal["never", "ghost"] = "never" if status in {"dead", "discarded"} else "ghost"
                yield Row(depth=depth + 1, kind=kind, event=event.id, handlers=(duty.handler,), types=node.emits)


def _status(duty: Duty) -> str:
    return duty.status


def _shown(duty: Duty, event: SagaEvent, causes: Causes) -> bool:
    """Whether the events that came of a duty stand below its event, so that it needs no row of its own."""
    below = {effect.id for effect in causes.effects.get(event.id, ())}
    return duty.status == "done" and bool(below.intersection(duty.emitted))


def _open(duty: Duty) -> tuple[str, ...]:
    notes = [_WORDS.get(duty.status, duty.status)]
    notes += [moment(duty.due_ms)] if duty.due_ms else []
    notes += [counted(duty.attempts, "attempt")] if duty.attempts else []
    notes += [f"letter {duty.letter[:_SHORT]}"] if duty.letter else []
    notes += [f"redriven {duty.redrives}x"] if duty.redrives else []
    return (*notes, *filter(None, [duty.error]))


_WORDS = {
    "pending": "not handled yet",
    "retrying": "is called again",
    "gathering": "waits for more",
    "armed": "its time comes",
    "dead": "dead letter",
    "discarded": "dead letter given up",
}


def _elsewhere(saga: Saga, causes: Causes) -> Iterator[_Ahead]:
    """What belongs to no event here: duties about one that is not there, and what is expected from outside."""
    for duty in saga.duties:
        if duty.event not in causes.by_id:
            notes = (*_open(duty), f"event {duty.event} is not here")
            row = Row(depth=0, kind="duty", event=duty.event, handlers=(duty.handler,), status=duty.status, notes=notes)
            yield _Ahead(0, row)
    owing = {duty.handler for duty in saga.duties if duty.status not in AT_REST}
    for expected in saga.expected:
        if expected.handler not in owing:
            yield _Ahead(0, _outside(expected))


def _outside(expected: Expected) -> Row:
    until = [f"until {moment(expected.until_ms)}"] if expected.until_ms else []
    handlers = (expected.handler,) if expected.handler else ()
    return Row(depth=0, kind="ghost", handlers=handlers, types=expected.what, notes=(expected.because, *until))


def lines(tree: Iterable[Row]) -> list[Line]:
    """The tree as text."""
    shown = list(tree)
    more_at: set[int] = set()  # depths at which another row follows below the same cause
    found: list[Line] = []
    for row in reversed(shown):
        depth = min(row.depth, _DEEPEST)
        lead, hang = _guides(depth, last=depth not in more_at, more_at=more_at)
        found.append(_line(row, f"{lead}({row.depth} deep) " if row.depth > depth else lead, hang))
        more_at = {above for above in more_at if above < depth} | {depth}
    return found[::-1]


def _guides(depth: int, *, last: bool, more_at: set[int]) -> tuple[str, str]:
    """What stands before a row, and before what it has below it."""
    if depth == 0:
        return "", "    "
    before = "".join("│  " if above in more_at else "   " for above in range(1, depth))
    return before + ("└─ " if last else "├─ "), before + ("   " if last else "│  ") + "    "


def _line(row: Row, lead: str, hang: str) -> Line:
    said = {"event": _event_spans, "duty": _duty_spans, "fold": _fold_spans}.get(row.kind, _ghost_spans)(row)
    return line(*said, lead=lead, hang=hang)


def _event_spans(row: Row) -> list[Span]:
    name: Span = (row.types[0], "bad" if row.failure or row.undeclared else "strong")
    spans: list[Span] = [("~ ", "bad")] if row.undeclared else []
    spans += [name]
    spans += [(f" x{row.copies}", "dim")] * (row.copies > 1)
    spans += [(f"  {row.handlers[0]}", "")]
    spans += [(f"  ↶ undoes {row.undoes}", "warn")] * bool(row.undoes)
    if row.ends:
        spans.append(
            (
                f"  {'✓' if row.ends == 'completed' else '✗'} ends it: {row.ends}",
                "good" if row.ends == "completed" else "bad",
            )
        )
    spans += [(f"  {lasting(row.at_ms) if row.depth == 0 and not row.at_ms else _later(row.at_ms)}", "dim")]
    return spans + [(f"  {note}", "bad" if row.undeclared else "warn") for note in row.notes]


def _later(ms: int) -> str:
    return lasting(ms) if ms < 0 else f"+{lasting(ms)}"


def _duty_spans(row: Row) -> list[Span]:
    mark, style = DUTY_MARKS[row.status]  # type: ignore[index] # of a duty
    quiet = row.status in AT_REST
    spans: list[Span] = [(f"{mark} ", style), (", ".join(row.handlers), "dim" if quiet else "")]
    words = {"stopped": "  not needed any more", "unneeded": "  nothing to do"}.get(row.status, "")
    return [*spans, (words, "dim"), *[(f"  {note}", style) for note in row.notes]]


def _ghost_spans(row: Row) -> list[Span]:
    types = " or ".join(row.types) or "an event"
    if row.kind == "never":
        return [("x ", "bad"), (f"{types} will not come", "dim")]
    return [("┄ ", "dim"), (f"{types} may come", "dim"), *[(f"  {note}", "dim") for note in row.notes]]


def _fold_spans(row: Row) -> list[Span]:
    return [
        (f"{row.types[0]} x{row.copies}", "strong"),
        (" more, not shown", "dim"),
        *[(f"  {note}", "dim") for note in row.notes],
    ]
