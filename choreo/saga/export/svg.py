"""A saga's sequence as SVG. Pure. Colours come from the page's own style sheet, by class."""

from __future__ import annotations

from html import escape

from choreo.printable import printable
from choreo.saga.model import Saga
from choreo.saga.views import sequence
from choreo.saga.views.lines import lasting

_COLUMN, _ROW, _TOP, _LABEL, _LONGEST = 96, 30, 40, 260, 60
MOST = 500
"""So many arrows are drawn; the page's tree and tables have all."""


def safe(text: str) -> str:
    """The text for HTML and SVG: escaped, and without what a document must not have or what turns its direction."""
    return escape(printable(text), quote=True)


def drawing(saga: Saga) -> str:
    """The drawing, as an `svg` element with a title for those who cannot see it."""
    arrows = sequence.arrows(saga)[:MOST]
    names = sequence.lifelines(arrows)
    place = {name: _COLUMN // 2 + _COLUMN * number for number, name in enumerate(names)}
    width, height = _COLUMN * len(names) + _LABEL, _TOP + _ROW * (len(arrows) + 1)
    title = f"Sequence of {saga.type} {saga.key}: {len(arrows)} events between {len(names)} services"
    drawn = [_lifeline(name, x, height) for name, x in place.items()]
    drawn += [_arrow(arrow, number, place) for number, arrow in enumerate(arrows)]
    inside = "\n".join(drawn)
    return (
        f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' aria-label="{safe(title)}">\n<title>{safe(title)}</title>\n{_HEAD}\n{inside}\n</svg>'
    )


_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" class="head"/></marker></defs>'
)


def _lifeline(name: str, x: int, height: int) -> str:
    shown = name if len(name) <= _COLUMN // 7 else name[: _COLUMN // 7 - 1] + "…"
    return (
        f'<text x="{x}" y="18" text-anchor="middle" class="name">{safe(shown)}<title>{safe(name)}</title></text>'
        f'<line x1="{x}" y1="26" x2="{x}" y2="{height}" class="life"/>'
    )


def _arrow(arrow: sequence.Arrow, number: int, place: dict[str, int]) -> str:
    y, start = _TOP + _ROW * number + _ROW // 2, place[arrow.sender]
    style = "bad" if arrow.failure or arrow.oddity else "good" if arrow.ends == "completed" else ""
    drawn = [f'<circle cx="{start}" cy="{y}" r="4" class="dot {style}"/>']
    for name in arrow.to:
        end = place[name]
        if end != start:
            near = end + (-3 if end > start else 3)
            drawn.append(
                f'<line x1="{start}" y1="{y}" x2="{near}" y2="{y}" class="arrow {style}" marker-end="url(#head)"/>'
            )
    for name, _, said in arrow.troubles:
        drawn.append(f'<text x="{place[name] + 5}" y="{y - 3}" class="bad">✗<title>{safe(said)}</title></text>')
    said = f"{arrow.type}{f' x{arrow.copies}' if arrow.copies > 1 else ''}"
    shown = said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
    x = max(place.values()) + _COLUMN // 3
    time = lasting(arrow.at_ms)
    return f'<g>{"".join(drawn)}<text x="{x}" y="{y + 4}" class="{style}">{safe(shown)} <tspan class="dim">{time}</tspan></text></g>'
