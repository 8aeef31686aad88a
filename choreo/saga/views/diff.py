"""Two sagas beside each other, aligned by what caused what. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal, NamedTuple

from choreo.graph import Graph
from choreo.saga.model import Duty, Saga, SagaEvent
from choreo.saga.views.causes import Causes
from choreo.saga.views.lines import Line, Span, Style, lasting, line

_DEEPEST = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An event or a handler's duty that both sagas have, or one of them.

    Attributes:
        what: its type and its handler, or the handler whose duty it is.
        side: `both`; `left` or `right` if the other has none; `changed` if both have it, and it went differently.
        first: whether the sagas part here.
        left_ms, right_ms: when, after each one's start; None if it has none, or it has no time.
        notes: what is different.
    """

    depth: int
    kind: Literal["event", "duty"]
    what: str
    side: Literal["both", "left", "right", "changed"]
    first: bool
    left_ms: int | None
    right_ms: int | None
    notes: str


class _Both(NamedTuple):
    depth: int
    left: SagaEvent | None
    right: SagaEvent | None


def diff(left: Saga, right: Saga, graph: Graph) -> list[Pair]:
    """All events and duties of both, causes before effects; siblings of one type and handler pair up in their order."""
    joined = {node.id: frozenset(node.consumes) for node in graph.handlers if node.kind == "join"}
    one, two = Causes(left, joined), Causes(right, joined)
    found: list[Pair] = []
    seen: set[int] = set()
    ahead = [*reversed(list(_paired(one.effects[None], two.effects[None], 0)))]
    while ahead:
        both = ahead.pop()
        if id(both.left or both.right) in seen:  # a circle of causes
            continue
        seen.add(id(both.left or both.right))
        found += [_event(both, one, two), *_duties(both, one, two)]
        below = _paired(_below(one, both.left), _below(two, both.right), both.depth + 1)
        ahead += reversed(list(below))
    return _with_first(found)


def _below(causes: Causes, event: SagaEvent | None) -> Sequence[SagaEvent]:
    return causes.effects.get(event.id, ()) if event else ()


def _paired(left: Sequence[SagaEvent], right: Sequence[SagaEvent], depth: int) -> Iterator[_Both]:
    ones, twos = _by_kind(left), _by_kind(right)
    for kind in dict.fromkeys([*ones, *twos]):
        for one, two in zip_longest(ones.get(kind, ()), twos.get(kind, ())):
            yield _Both(depth, one, two)


def _by_kind(events: Sequence[SagaEvent]) -> Mapping[tuple[str, str], Sequence[SagaEvent]]:
    found: dict[tuple[str, str], list[SagaEvent]] = {}
    for event in events:
        found.setdefault((event.type, event.handler or event.source), []).append(event)
    return found


def _event(both: _Both, one: Causes, two: Causes) -> Pair:
    left, right = both.left, both.right
    event = left or right
    assert event is not None  # noqa: S101 - zip_longest gives at least one
    differs = {"copies": (left and len(left.places), right and len(right.places))} if left and right else {}
    notes = ", ".join(f"{name}: {a} | {b}" for name, (a, b) in differs.items() if a != b)
    return Pair(
        depth=both.depth,
        kind="event",
        what=f"{event.type or 'unknown type'}  {event.handler or event.source}",
        side=_side(left, right, notes),
        first=False,
        left_ms=left.produced_ms - one.saga.started_ms if left else None,
        right_ms=right.produced_ms - two.saga.started_ms if right else None,
        notes=notes,
    )


def _side(left: object, right: object, notes: str) -> Literal["both", "left", "right", "changed"]:
    if left is None or right is None:
        return "left" if right is None else "right"
    return "changed" if notes else "both"


def _duties(both: _Both, one: Causes, two: Causes) -> Iterator[Pair]:
    """The duties that went differently; those that both have, and went alike, say nothing that the events do not say."""
    ones = {duty.handler: duty for duty in one.duties.get(both.left.id, ())} if both.left else {}
    twos = {duty.handler: duty for duty in two.duties.get(both.right.id, ())} if both.right else {}
    if not (both.left and both.right):
        return
    for handler in dict.fromkeys([*ones, *twos]):
        left, right = ones.get(handler), twos.get(handler)
        notes = "" if _said(left) == _said(right) else f"{_said(left)} | {_said(right)}"
        if notes:
            side = _side(left, right, notes)
            yield Pair(
                depth=both.depth + 1,
                kind="duty",
                what=handler,
                side=side,
                first=False,
                left_ms=None,
                right_ms=None,
                notes=notes,
            )


def _said(duty: Duty | None) -> str:
    if duty is None:
        return "nothing to do"
    attempts = f", {duty.attempts} attempts" if duty.attempts > 1 else ""
    return duty.status + attempts + (f": {duty.error}" if duty.error else "")


def _with_first(pairs: list[Pair]) -> list[Pair]:
    """They part at the event with the fewest causes that one of them has alone; without such a one, at what went differently."""
    apart = [number for number, pair in enumerate(pairs) if pair.side in {"left", "right"} and pair.kind == "event"]
    other = [number for number, pair in enumerate(pairs) if pair.side != "both"]
    first = min(apart or other, key=lambda number: pairs[number].depth, default=-1)
    return [replace(pair, first=number == first) for number, pair in enumerate(pairs)]


_MARKS: Mapping[str, tuple[str, Style]] = {
    "both": ("  ", ""),
    "left": ("< ", "bad"),
    "right": ("> ", "good"),
    "changed": ("≠ ", "warn"),
}


def lines(left: Saga, right: Saga, graph: Graph) -> list[Line]:
    """The difference as text."""
    pairs = diff(left, right, graph)
    names = [f"{saga.type} {saga.key}  {saga.state}: {saga.reason}" for saga in (left, right)]
    head = [
        line(("< ", "bad"), (left.id, "strong"), f"  {names[0]}"),
        line(("> ", "good"), (right.id, "strong"), f"  {names[1]}"),
    ]
    width = max((len(_indented(pair)) for pair in pairs), default=0)
    body = [_line(pair, width) for pair in pairs]
    alike = [] if any(pair.first for pair in pairs) else [line(("the same events came of the same causes", "dim"))]
    return [*head, line((f"{'':<{width + 2}}  {'<':>10}  {'>':>10}", "dim")), *body, *alike]


def _indented(pair: Pair) -> str:
    return "  " * min(pair.depth, _DEEPEST) + pair.what


def _line(pair: Pair, width: int) -> Line:
    mark, style = _MARKS[pair.side]
    times = "  ".join(f"{'' if ms is None else lasting(ms):>10}" for ms in (pair.left_ms, pair.right_ms))
    said: list[Span] = [(mark, style), (f"{_indented(pair):<{width}}  ", style), (times, "dim")]
    said += [("  <- they part here", "strong")] if pair.first else []
    said += [(f"  {pair.notes}", "warn")] if pair.notes else []
    return line(*said)
