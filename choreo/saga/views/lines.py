"""Lines of styled text, and the words that all views share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

from choreo.saga.model import DutyStatus, EffectStatus, SagaEvent, State

Style: TypeAlias = Literal["", "good", "bad", "warn", "dim", "strong"]
Span: TypeAlias = tuple[str, Style]


class Line(NamedTuple):
    """One line; where it does not fit, it goes on in the next one, behind `hang`.

    Attributes:
        lead: what stands before the text: branches of a tree.
        hang: what stands there in its further lines.
    """

    spans: tuple[Span, ...]
    lead: str = ""
    hang: str = ""


def line(*spans: Span | str, lead: str = "", hang: str = "") -> Line:
    """A line of these pieces, without the empty ones."""
    whole: list[Span] = [(span, "") if isinstance(span, str) else span for span in spans]
    return Line(tuple(span for span in whole if span[0]), lead, hang)


def plain(lines: Iterable[Line]) -> str:
    """The lines without styles. What steers a terminal is still in it."""
    return "\n".join((each.lead + "".join(text for text, _ in each.spans)).rstrip() for each in lines)


STATE_STYLES: dict[State, Style] = {
    "running": "", "waiting": "", "late": "warn", "stuck": "bad", "compensating": "warn", "completed": "good",
    "compensated": "warn", "partially-compensated": "bad", "failed": "bad", "diverged": "bad", "conflict": "bad",
    "truncated": "warn",
}  # fmt: skip
DUTY_MARKS: dict[DutyStatus, Span] = {
    "pending": ("◌", ""), "retrying": ("↻", "warn"), "gathering": ("⋈", ""), "armed": ("◷", ""), "done": ("✓", "good"),
    "stopped": ("·", "dim"), "dead": ("✗", "bad"), "discarded": ("✗", "warn"), "unneeded": ("·", "dim"),
}  # fmt: skip
EFFECT_STYLES: dict[EffectStatus, Style] = {
    "kept": "", "owed": "bad", "done": "good", "impossible": "bad", "uncovered": "warn"
}  # fmt: skip

_SECOND, _MINUTE = 1000, 60_000
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", _MINUTE), ("s", _SECOND))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_10000 = 253_402_300_800_000
"""The first ms that no calendar has."""


def lasting(ms: int) -> str:
    """A duration for reading: `950 ms`, `1.25 s`, `3 m 5 s`, `2 h 10 m`, `3 d 4 h`; of a second or more in two units at most."""
    if abs(ms) < _SECOND:
        return f"{ms} ms"
    if abs(ms) < _MINUTE:
        return f"{ms / _SECOND:.2f}".rstrip("0").rstrip(".") + " s"
    sign, ms = "-" * (ms < 0), abs(ms)
    first = next(number for number, (_, size) in enumerate(_UNITS) if ms >= size)
    (unit, size), (below, below_size) = _UNITS[first], _UNITS[first + 1]
    rest = ms % size // below_size
    return f"{sign}{ms // size} {unit}" + (f" {rest} {below}" if rest else "")


def moment(ms: int) -> str:
    """A time: RFC 3339, UTC, with milliseconds. What no calendar has is said as the number it is."""
    if not 0 <= ms < YEAR_10000:
        return f"{ms} ms since 1970"
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def counted(number: int, noun: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def service_of(handler: str) -> str:
    """The service of a handler's id."""
    return handler.rpartition(".")[0] or handler


def emitter_of(event: SagaEvent) -> str:
    """The service, or whoever else, that an event came from."""
    return service_of(event.handler) if event.handler else event.source or "unknown"
