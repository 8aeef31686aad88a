"""Rows in columns, as lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from choreo.printable import columns
from choreo.saga.views.lines import Line, Span, line

_GAP = "  "


def lines(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[Line]:
    """The rows below their heads; none without rows. The last column may be as wide as it likes."""
    if not rows:
        return []
    widths = [max(map(columns, column)) for column in _columns(heads, rows)][:-1]
    headed = [_line([(head, "strong") for head in heads], widths)]
    return [*headed, *(_line(row, widths) for row in rows)]


def _columns(heads: Sequence[str], rows: Sequence[Sequence[Span]]) -> list[list[str]]:
    return [[head, *(row[number][0] for row in rows)] for number, head in enumerate(heads)]


def _line(cells: Sequence[Span], widths: Sequence[int]) -> Line:
    padded = [
        (f"{text}{' ' * (width - columns(text))}{_GAP}", style)
        for (text, style), width in zip(cells, widths, strict=False)
    ]
    return line(*padded, cells[-1], hang=" " * 4)
