"""The choreography as a picture: a Mermaid flowchart, and text for reading."""

from __future__ import annotations

import re

from choreo import durations
from choreo.graph import Batching, Edge, EventNode, Graph, HandlerNode, Joining, Timing, Undoing

_SHAPES = {
    "on": ("[", "]"),
    "compensation": ("[", "]:::compensation"),
    "join": ("[[", "]]"),
    "deadline": ("{{", "}}"),
    "batch": ("[(", ")]"),
}
_MARKS = {"completed": "✓ ", "failed": "✗ ", None: ""}
_STYLES = {
    "entry": "stroke-width:3px",
    "failure": "stroke:#c00,stroke-width:2px",
    "completed": "stroke:#080,stroke-width:4px",
    "failed": "stroke:#c00,stroke-width:4px",
    "compensation": "stroke-dasharray:6 4",
}
_DASHED = "stroke-dasharray:6 4"


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: services as boxes around their handlers, events between them.

    Joins have double sides, deadlines are hexagons, batches drums; a compensation has a dashed border and a dotted line to
    the step that it undoes. A dashed line with a cross leads from an event to what it stops. Events that end their saga
    have a thick border and a mark.
    """
    lines = ["flowchart LR"]
    for service in graph.services:
        lines.append(f'  subgraph {_id("s", service)}["{service}"]')
        lines += [f"    {_box(handler)}" for handler in graph.handlers if handler.service == service]
        lines.append("  end")
    entries = {event.name for event in graph.entries}
    lines += [f"  {_stadium(event, is_entry=event.name in entries)}" for event in graph.events]
    links = [f"  {_link(edge, graph.event[edge.event])}" for edge in graph.edges]
    dashed = [str(number) for number, edge in enumerate(graph.edges) if edge.kind == "stops"]
    links += [
        f"  {_id('h', handler.id)} -. undoes .-> {_id('h', handler.rule.step)}"
        for handler in graph.handlers
        if isinstance(handler.rule, Undoing)
    ]
    lines += links
    if dashed:
        lines.append(f"  linkStyle {','.join(dashed)} {_DASHED}")
    used = {line.rpartition(":::")[2] for line in lines if ":::" in line}
    return "\n".join([*lines, *(f"  classDef {name} {style}" for name, style in _STYLES.items() if name in used)])


def _box(handler: HandlerNode) -> str:
    left, right = _SHAPES[handler.kind]
    note = _note(handler)
    return f'{_id("h", handler.id)}{left}"{handler.name}{note and f"<br/>{note}"}"{right}'


def _note(handler: HandlerNode) -> str:
    """What the second line of a handler's box says."""
    match handler.rule:
        case Joining() as rule:
            together = _gathering(rule) or f"{rule.need} of {len(handler.consumes)}"
            return together + (f" by {rule.by}" if rule.by else "")
        case Timing() as rule:
            return _time(rule)
        case Batching() as rule:
            return f"{rule.max_size} or {durations.text(rule.max_age)}"
    return ""


def _gathering(rule: Joining) -> str:
    """What a join gathers; empty if it takes one event of each kind."""
    return "" if rule.gathers is None else f"{rule.count or 'n'} x {rule.gathers}"


def _time(rule: Timing) -> str:
    first = f"after {durations.text(rule.within)}"
    return first if rule.times == 1 else f"{first}, every {durations.text(rule.every)}, {rule.times} times"


def _stadium(event: EventNode, *, is_entry: bool) -> str:
    style = event.ends or ("failure" if event.failure else "entry" if is_entry else "")
    return f'{_id("e", event.name)}(["{_MARKS[event.ends]}{event.name}"]){style and f":::{style}"}'


def _link(edge: Edge, event: EventNode) -> str:
    source, target = ("h", "e") if edge.kind == "emits" else ("e", "h")
    words = ["stops"] * (edge.kind == "stops") + [", ".join(edge.topics)] * (edge.topics != event.topics)
    arrow = "-.-x" if edge.kind == "stops" else "-->"
    through = f'|"{" ".join(words)}"|' if words else ""
    return f"{_id(source, edge.source)} {arrow}{through} {_id(target, edge.target)}"


def _id(kind: str, name: str) -> str:
    """A Mermaid id: letters, digits and `_`, different for different names."""
    return f"{kind}_" + re.sub(r"[^A-Za-z0-9]", lambda m: "__" if m[0] == "_" else f"_{ord(m[0]):x}_", name)


def text(graph: Graph) -> str:
    """The graph for reading: each event, causes before effects, and below it who reacts and what that emits."""
    lines = [f"services: {len(graph.services)}, handlers: {len(graph.handlers)}, events: {len(graph.events)}"]
    entries = {event.name for event in graph.entries}
    for event in _causes_first(graph):
        notes = [f"topic {' or '.join(event.topics)}", f"key {event.key}"]
        notes += ["failure"] * event.failure + ["from outside"] * (event.name in entries)
        notes += ["when compensating"] * event.compensation
        notes += [f"ends the saga as {event.ends}"] * bool(event.ends)
        lines += ["", f"{event.name} ({', '.join(notes)})"]
        lines += _reactions(graph, event) or ["  nobody reacts"]
    return "\n".join(lines)


def _reactions(graph: Graph, event: EventNode) -> list[str]:
    lines = []
    for edge in graph.edges:
        if edge.event == event.name and edge.kind != "emits":
            handler = graph.handler[edge.handler]
            said = _reaction(handler, event.name) if edge.kind == "consumes" else f"stops {handler.id}"
            lines.append(
                f"  {said}" + (f" (only from {', '.join(edge.topics)})" if edge.topics != event.topics else "")
            )
    return lines


def _reaction(handler: HandlerNode, event: str) -> str:
    several = [f"several of {' and '.join(handler.several)}"] if handler.several else []
    single = [name for name in handler.emits if name not in handler.several]
    emitted = " | ".join([*several, *single, *["nothing"] * handler.may_emit_nothing])
    return f"{handler.id}{_condition(handler, event)} -> {emitted}"


def _condition(handler: HandlerNode, event: str) -> str:
    match handler.rule:
        case Undoing() as rule:
            return f", undoing {rule.step}"
        case Joining() as rule:
            others = [name for name in handler.consumes if name != event]
            gathered = _gathering(rule)
            needed = f" ({rule.need} of them)" if rule.need < len(handler.consumes) and not gathered else ""
            with_them = f", with {', '.join(others)}{needed}" if others else ""
            return with_them + (f", gathering {gathered}" if gathered else "") + (f", by {rule.by}" if rule.by else "")
        case Timing() as rule:
            return f", {_time(rule)}"
        case Batching() as rule:
            return f", up to {rule.max_size} at once or {durations.text(rule.max_age)} after the first"
    return ""


def _causes_first(graph: Graph) -> list[EventNode]:
    """Breadth first from the entries; what only a cycle leads to comes last."""
    order = [event.name for event in graph.entries]
    for name in order:  # grows while it is walked
        for handler in graph.handlers:
            if name in handler.consumes:
                order += [emitted for emitted in handler.emits if emitted not in order]
    return [graph.event[name] for name in dict.fromkeys([*order, *graph.event])]
