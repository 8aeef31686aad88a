"""What a saga's steps have done, and what has undone it. Pure."""

from __future__ import annotations

from collections import Counter

from choreo.saga.model import EffectStatus, Saga
from choreo.saga.views import grid
from choreo.saga.views.lines import EFFECT_STYLES, Line, Span, line

_WORDS: dict[EffectStatus, str] = {
    "kept": "kept",
    "owed": "OWED",
    "done": "undone",
    "impossible": "CANNOT BE UNDONE",
    "uncovered": "stays: nothing is declared to undo it",
}
HEADS = ("effect", "step", "status", "undone by", "because of")


def lines(saga: Saga) -> list[Line]:
    """The ledger as text, with its bottom line."""
    return [*grid.lines(HEADS, rows(saga)), total(saga)]


def rows(saga: Saga) -> list[list[Span]]:
    """An effect a row, its cells those of `HEADS`."""
    types = {event.id: event.type for event in saga.events}
    return [
        [
            (effect.type, "strong"),
            (effect.step, ""),
            (_WORDS[effect.status], EFFECT_STYLES[effect.status]),
            (_undoing(effect.compensation, [types.get(id_, id_) for id_ in effect.undone_by]), ""),
            (types.get(effect.failure, effect.failure) if effect.failure else "", ""),
        ]
        for effect in saga.ledger
    ]


def total(saga: Saga) -> Line:
    """The bottom line."""
    if not saga.ledger:
        return line(("no step has an effect that could have to be undone", "dim"))
    counts = Counter(effect.status for effect in saga.ledger)
    said: list[Span] = [
        (f"{counts[status]} {word.partition(':')[0].lower()}  ", EFFECT_STYLES[status])
        for status, word in _WORDS.items()
        if counts[status]
    ]
    return line(*said)


def _undoing(compensation: str | None, undone_by: list[str]) -> str:
    emitted = f" -> {', '.join(undone_by)}" if undone_by else ""
    return f"{compensation or '-'}{emitted}"
