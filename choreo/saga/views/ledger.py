"""What a saga's steps have done, and what has undone it. Pure."""

from __future__ import annotations

from choreo.saga.model import Saga
from choreo.saga.views import grid
from choreo.saga.views.lines import EFFECT_STYLES, Line, Span, line

_WORDS = {
    "kept": "kept",
    "owed": "OWED",
    "done": "undone",
    "impossible": "CANNOT BE UNDONE",
    "uncovered": "stays: nothing is declared to undo it",
}
_HEADS = ("effect", "step", "status", "undone by", "because of")


def lines(saga: Saga) -> list[Line]:
    """The ledger as text, with its bottom line."""
    if not saga.ledger:
        return [line(("no step has an effect that could have to be undone", "dim"))]
    types = {event.id: event.type for event in saga.events}
    rows: list[list[Span]] = [
        [
            (effect.type, "strong"),
            (effect.step, ""),
            (_WORDS[effect.status], EFFECT_STYLES[effect.status]),
            (_undoing(effect.compensation, [types.get(id_, id_) for id_ in effect.undone_by]), ""),
            (types.get(effect.failure, effect.failure) if effect.failure else "", ""),
        ]
        for effect in saga.ledger
    ]
    return [*grid.lines(_HEADS, rows), _sum(saga)]


def _undoing(compensation: str | None, undone_by: list[str]) -> str:
    emitted = f" -> {', '.join(undone_by)}" if undone_by else ""
    return f"{compensation or '-'}{emitted}"


def _sum(saga: Saga) -> Line:
    counts = {status: sum(effect.status == status for effect in saga.ledger) for status in _WORDS}
    said: list[Span] = [(f"{count} {status}  ", EFFECT_STYLES[status]) for status, count in counts.items() if count]  # type: ignore[index] # of its keys
    return line(*said)
