"""Lines of sagas on a terminal: coloured and wrapped there, plain in a pipe. What would steer the terminal is escaped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from choreo.printable import printable
from choreo.saga.store.port import Summary
from choreo.saga.views import table as lists
from choreo.saga.views.lines import Line, Style, moment

_CODES: Mapping[Style, str] = {"good": "32", "bad": "1;31", "warn": "33", "dim": "2", "strong": "1", "": ""}
_RICH: Mapping[Style, str] = {
    "good": "green",
    "bad": "bold red",
    "warn": "yellow",
    "dim": "dim",
    "strong": "bold",
    "": "",
}
_LEAST = 20
_WIDE = 120
"""So wide things are drawn where there is no terminal to fit."""


def width() -> int:
    """How wide to draw."""
    return shutil.get_terminal_size((_WIDE, 24)).columns if sys.stdout.isatty() else _WIDE


def show(lines: Iterable[Line]) -> None:
    """Print them."""
    if not sys.stdout.isatty():
        sys.stdout.writelines(f"{_plain(line)}\n" for line in lines)
        return
    columns, coloured = width(), not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    sys.stdout.writelines(f"{text}\n" for line in lines for text in fitted(line, columns, coloured=coloured))
    sys.stdout.flush()


def _plain(line: Line) -> str:
    return (line.lead + "".join(printable(text) for text, _ in line.spans)).rstrip()


def fitted(line: Line, columns: int, *, coloured: bool) -> list[str]:
    """The line as it fits: what is too long goes on behind its `hang`."""
    spans = [(printable(text), style) for text, style in line.spans]
    length = cell_len(line.lead) + sum(cell_len(text) for text, _ in spans)
    if length <= columns:
        return [(line.lead + "".join(_coloured(text, style, coloured=coloured) for text, style in spans)).rstrip()]
    text = Text.assemble(*((each, _RICH[style]) for each, style in spans))
    room = max(_LEAST, columns - max(cell_len(line.lead), cell_len(line.hang)))
    console = Console(
        width=room, force_terminal=coloured, color_system="standard" if coloured else None, highlight=False
    )
    found = []
    for number, part in enumerate(text.wrap(console, room)):
        with console.capture() as capture:
            console.print(part, end="", no_wrap=True, overflow="ignore", crop=False)
        found.append((line.hang if number else line.lead) + capture.get().rstrip())
    return found


def _coloured(text: str, style: Style, *, coloured: bool) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if coloured and style else text


def table(rows: Sequence[Summary], *, now_ms: int) -> None:
    """A list of sagas: in columns on a terminal, elsewhere tab-separated, the id first."""
    if sys.stdout.isatty():
        show(lists.lines(rows, now_ms=now_ms, width=width()))
        return
    for row in rows:
        took = "" if row.ended_ms is None else str(row.duration_ms)
        cells = (row.saga, row.state, row.type, row.key, moment(row.started_ms), took, row.reason)
        print(*map(printable, cells), sep="\t")
