"""A saga as one page of HTML: nothing is loaded from anywhere, nothing runs, and it reads on a telephone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from choreo.graph import Graph
from choreo.saga.export.svg import MOST, drawing, safe
from choreo.saga.model import Saga
from choreo.saga.views import ledger, summary, timeline, tree
from choreo.saga.views.lines import DUTY_MARKS, STATE_STYLES, Line, Span, counted, lasting, moment

_STYLE = """
:root { color-scheme: light dark; --bad: #b3261e; --good: #1b6e35; --warn: #8a5a00; --dim: #5d6470; --line: #c9ced6; }
@media (prefers-color-scheme: dark) {
  :root { --bad: #ff8a80; --good: #7fd99a; --warn: #f0c060; --dim: #a0a8b4; --line: #4a515c; }
}
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 12px; max-width: 1200px; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.6em 0 .4em; }
.state { border: 2px solid; border-radius: 4px; padding: 0 .4em; white-space: nowrap; font-size: .9rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 4px; padding: 6px; }
.wide:focus-visible { outline: 3px solid; }
.tree, .facts { font: 14px/1.6 ui-monospace, monospace; margin: 0; padding: 0; list-style: none; }
.tree li { padding-left: calc(min(var(--depth), 12) * min(1.4em, 2.4vw) + .6em); border-left: 1px solid var(--line); text-indent: -.6em; }
table { border-collapse: collapse; font-size: 14px; white-space: nowrap; } th, td { text-align: left; padding: 3px 10px 3px 0; vertical-align: top; }
td { border-top: 1px solid var(--line); }
.bad { color: var(--bad); fill: var(--bad); } .good { color: var(--good); fill: var(--good); } .warn { color: var(--warn); }
.dim { color: var(--dim); fill: var(--dim); } .strong { font-weight: 600; }
svg { font: 13px system-ui, sans-serif; display: block; } svg text { fill: currentColor; } svg .dim { fill: var(--dim); }
svg .name { font-weight: 600; } svg .bad { fill: var(--bad); } svg .good { fill: var(--good); }
.life { stroke: var(--line); stroke-dasharray: 4 4; } .arrow { stroke: currentColor; stroke-width: 1.5; }
.arrow.bad { stroke: var(--bad); } .arrow.good { stroke: var(--good); } .head, .dot { fill: currentColor; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(saga: Saga, graph: Graph) -> str:
    """The page of a saga."""
    name = f"{saga.type or 'Saga'} {saga.key}"
    style = STATE_STYLES[saga.state]
    rows = tree.rows(saga, graph)
    shown = list(zip(rows, tree.lines(rows), strict=True))
    cut = f" (the first {MOST} events)" if len(saga.events) > MOST else ""
    parts = [
        f'<h1>{safe(name)} <span class="state {style}">{saga.state}</span></h1>',
        f"<p>{safe(saga.reason)}</p>",
        _list("facts", [(0, line) for line in summary.lines(saga, now_ms=saga.updated_ms)[1:]]),
        "<h2>What came of what</h2>",
        _list("tree", [(row.depth, line) for row, line in shown]),
        f"<h2>Who told whom{cut}</h2>",
        _wide("Sequence", drawing(saga)),
        "<h2>Where the time went</h2>",
        _wide("Timeline", _timeline(saga)),
        "<h2>What is done and undone</h2>",
        _ledger(saga),
        "<h2>Events</h2>",
        _wide("Events", _events(saga)),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(name)}: {saga.state}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _list(kind: str, rows: Iterable[tuple[int, Line]]) -> str:
    """Lines as a list; how deep they stand is said by the style sheet alone, so that they wrap on a small screen."""
    items = (f'<li style="--depth: {depth}">{_spans(line)}</li>' for depth, line in rows)
    return f'<ul class="{kind}">\n' + "\n".join(items) + "\n</ul>"


def _spans(line: Line) -> str:
    return "".join(map(_span, line.spans))


def _span(span: Span) -> str:
    text, style = span
    return f'<span class="{style}">{safe(text)}</span>' if style else safe(text)


def _wide(label: str, inside: str) -> str:
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{inside}</div>'


def _timeline(saga: Saga) -> str:
    rows: list[list[Span]] = [
        [
            (step.type, "strong"),
            *_plain(step.handler, lasting(step.starts_ms), lasting(step.broker_ms)),
            ("" if step.handled_ms is None else lasting(step.handled_ms), ""),
            (step.status, DUTY_MARKS[step.status][1]),
            ("on the longest way" * step.critical, ""),
            ("clock skew" * step.skew, "warn"),
        ]
        for step in timeline.steps(saga)
    ]
    return _table(("event", "handler", "at", "in broker", "handled in", "status", "", ""), rows)


def _ledger(saga: Saga) -> str:
    rows = ledger.rows(saga)
    table = _wide("Ledger", _table(ledger.HEADS, rows)) if rows else ""
    return f"{table}<p>{_spans(ledger.total(saga))}</p>"


def _events(saga: Saga) -> str:
    rows = [
        _plain(
            *(event.type, event.id, event.cause or "", moment(event.produced_ms)),
            *(", ".join(map(str, event.places)), event.key),
        )
        for event in saga.events
    ]
    return f"<p>{counted(len(rows), 'event')}</p>" + _table(("type", "id", "cause", "produced", "places", "key"), rows)


def _plain(*cells: str) -> list[Span]:
    return [(cell, "") for cell in cells]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Span]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{_span(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
