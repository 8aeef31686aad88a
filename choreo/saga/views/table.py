"""Many sagas: rows of a list, and of its numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from choreo.printable import columns
from choreo.saga.questions.stats import Funnel, Stats
from choreo.saga.store.port import Summary
from choreo.saga.views import grid
from choreo.saga.views.lines import STATE_STYLES, Line, Span, lasting, line, moment

_BAR, _REASON, _KEY = 30, 28, 40
_HEADS = ("state", "type", "key", "began", "took", "saga", "reason")
_LEAST_WANTED = ("saga", "took", "type", "began")
"""The columns that go first where there is no room."""


def fields(row: Summary) -> dict[str, object]:
    """A saga of a list for programs: what lists know of it."""
    return row._asdict() | {"duration_ms": row.duration_ms}


def lines(rows: Sequence[Summary], *, now_ms: int, width: int) -> list[Line]:
    """A list of sagas in the columns there is room for; the reason is cut where a line ends, or goes below."""
    cells = [dict(zip(_HEADS, _cells(row, now_ms), strict=True)) for row in rows]
    heads = list(_HEADS)
    for least in _LEAST_WANTED:
        if (room := width - _taken(heads[:-1], cells)) >= _REASON:
            break
        heads.remove(least)
    room = max(_REASON, width - _taken(heads[:-1], cells))
    return grid.lines(
        heads, [[*(row[head] for head in heads[:-1]), (_cut(row["reason"][0], room), "")] for row in cells]
    )


def _taken(heads: Sequence[str], rows: Sequence[Mapping[str, Span]]) -> int:
    return sum(max([len(head), *(columns(row[head][0]) for row in rows)]) + 2 for head in heads)


def change_line(row: Summary, *, now_ms: int) -> Line:
    """A saga that has changed."""
    cells = _cells(row, now_ms)
    spans = [(f"{moment(now_ms)}  ", "dim"), *((f"{text}  ", style) for text, style in cells[:3])]
    return line(*spans, row.reason, hang=" " * 4)


def _cells(row: Summary, now_ms: int) -> list[Span]:
    return [
        (row.state, STATE_STYLES[row.state]),
        (row.type or "-", ""),
        (_cut(row.key, _KEY) or "-", "strong"),
        (f"{lasting(max(0, now_ms - row.started_ms))} ago", "dim"),
        (lasting(row.duration_ms) if row.ended_ms is not None else "…", ""),
        (row.saga, "dim"),
        (row.reason, ""),
    ]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def stats_lines(found: Stats) -> list[Line]:
    """Counts by type and state, and durations."""
    rows: list[list[Span]] = []
    for one in found.types:
        times = ["-" if ms is None else lasting(ms) for ms in (one.p50_ms, one.p95_ms, one.p99_ms)]
        rows.append(
            [
                (one.type or "-", "strong"),
                (f"{one.sagas:,}", ""),
                *((time, "") for time in times),
                (_states(one.states), ""),
            ]
        )
    heads = ("type", "sagas", "p50", "p95", "p99", "states")
    return [*grid.lines(heads, rows), line(f"{found.sagas:,} sagas: {_states(found.states) or 'none'}")]


def _states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in states.items())


def funnel_lines(found: Funnel) -> list[Line]:
    """How far sagas come, as bars."""
    rows: list[list[Span]] = [
        [(name or "-", "strong"), (f"{count:,}", ""), (f"{count * 100 / found.of:.0f} %", ""), ("█" * max(1, round(count * _BAR / found.of)), "")]
        for name, count in found.steps
    ]  # fmt: skip
    return [
        line(f"of the newest {found.of:,} sagas that begin with {found.type}, so many have"),
        *grid.lines(("event", "sagas", "share", ""), rows),
    ]
