"""A saga as Mermaid: a sequence diagram, and a flowchart. Pure.

Every text that comes from records goes through `safe`: nothing in it can end a label or start a statement.
"""

from __future__ import annotations

from choreo.graph import Graph
from choreo.printable import printable
from choreo.saga.model import Saga
from choreo.saga.views import sequence as sequences
from choreo.saga.views import tree
from choreo.saga.views.lines import emitter_of, lasting

_PLAIN = frozenset(" .,_/+")
_LONGEST = 200
_STYLES = {
    "failure": "stroke:#c00,stroke-width:2px",
    "completed": "stroke:#080,stroke-width:4px",
    "failed": "stroke:#c00,stroke-width:4px",
    "undeclared": "stroke:#c00,stroke-dasharray:4 3",
    "compensation": "stroke-dasharray:6 4",
    "ghost": "stroke-dasharray:2 4,color:#777",
    "never": "stroke:#c00,color:#777,text-decoration:line-through",
    "duty": "stroke-dasharray:2 4",
}


def safe(text: str) -> str:
    """The text as a Mermaid label: what is no letter, digit or harmless sign is an entity."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    shown = printable(cut)
    said = "".join(char if char.isalnum() or char in _PLAIN else f"#{ord(char)};" for char in shown)
    return f"#{ord(said[0])};{said[1:]}" if said.lower() == "end" else said or "#8203;"


def sequence(saga: Saga) -> str:
    """A sequence diagram: services as participants; notes for what went wrong."""
    arrows = sequences.arrows(saga)
    names = {name: f"p{number}" for number, name in enumerate(sequences.lifelines(arrows))}
    found = ["sequenceDiagram", *(f"  participant {id_} as {safe(name)}" for name, id_ in names.items())]
    for arrow in arrows:
        sender = names[arrow.sender]
        kind = "--x" if arrow.failure else "->>"
        label = safe(_label(arrow))
        found += [f"  {sender}{kind}{names[to]}: {label}" for to in arrow.to] or [f"  Note over {sender}: {label}"]
        found += [f"  Note over {names[service]}: {safe(said)}" for service, _, said in arrow.troubles]
    return "\n".join(found)


def _label(arrow: sequences.Arrow) -> str:
    copies = f" x{arrow.copies}" if arrow.copies > 1 else ""
    undoes = f", undoes {arrow.undoes}" if arrow.undoes else ""
    ends = f", ends it: {arrow.ends}" if arrow.ends else ""
    return f"{arrow.type}{copies}{undoes}{ends} +{lasting(arrow.at_ms)}"


def flow(saga: Saga, graph: Graph) -> str:
    """A flowchart: events below their causes, handlers on the lines between, dashed what is still to come."""
    rows = tree.rows(saga, graph)
    events = {event.id: event for event in saga.events}
    ids = {row.event: f"e{number}" for number, row in enumerate(rows) if row.kind == "event"}
    found = ["flowchart TD"]
    used: set[str] = set()
    above = ""
    for number, row in enumerate(rows):
        id_ = f"e{number}"
        style = _style(row, compensation=bool(row.undoes))
        used |= {style} - {""}
        found.append(f'  {id_}(["{safe(_text(row))}"]){style and f":::{style}"}')
        if row.kind == "event":
            event = events[row.event]
            cause = ids.get(event.cause or "")
            found += [f'  {cause} -->|"{safe(event.handler or emitter_of(event))}"| {id_}'] if cause else []
        elif row.kind in {"ghost", "never"} and above:
            found.append(f"  {above} -.-> {id_}")
        elif cause := ids.get(row.event):
            found.append(f"  {cause} -.- {id_}")
        above = id_ if row.kind == "duty" else ""
    return "\n".join([*found, *(f"  classDef {name} {_STYLES[name]}" for name in sorted(used))])


def _text(row: tree.Row) -> str:
    many = f" x{row.copies}" if row.copies > 1 else ""
    if row.kind in {"event", "fold"}:
        return " or ".join(row.types) + many
    return f"{', '.join(row.handlers)} {row.status}" if row.kind == "duty" else " or ".join(row.types) or "an event"


def _style(row: tree.Row, *, compensation: bool) -> str:
    if row.kind != "event":
        return "" if row.kind == "fold" else row.kind
    if row.undeclared:
        return "undeclared"
    return row.ends or ("failure" if row.failure else "compensation" if compensation else "")
