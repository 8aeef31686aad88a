"""Running the rules over a choreography."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from choreo.check.finding import Finding, Place
from choreo.check.model import Model
from choreo.check.rules import RULES
from choreo.check.walk import STEPS
from choreo.choreography import Choreography
from choreo.errors import DeclarationError

_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found in one choreography.

    Attributes:
        name: its name, for people.
        services, handlers, events: how many it has.
        findings: errors first, then by code and handler.
        gave_up: how many questions about paths were left open, since they took too many steps.
    """

    name: str
    services: int
    handlers: int
    events: int
    findings: tuple[Finding, ...]
    gave_up: int = 0


def check(choreography: Choreography, name: str = "", *, steps: int = STEPS) -> Report:
    """Look at a choreography by every rule. Declarations and sources are read; nothing is run.

    Args:
        name: of the choreography, for people.
        steps: how long one search for a path may take.
    """
    model = Model.of(choreography, steps=steps)
    found = {finding.fingerprint: finding for rule in RULES for finding in rule.find(model)}
    placed = [replace(finding, place=_place(model, finding.handler)) for finding in found.values()]
    placed.sort(key=lambda f: (_SEVERITIES.index(f.severity), f.code, f.handler, f.about))
    graph = choreography.graph
    return Report(
        name=name,
        services=len(graph.services),
        handlers=len(graph.handlers),
        events=len(graph.events),
        findings=tuple(placed),
        gave_up=model.walks.gave_up,
    )


def _place(model: Model, handler: str) -> Place | None:
    source = model.sources.get(handler)
    return source.place if source else None


def check_apart(choreographies: Mapping[str, Choreography]) -> None:
    """Check that choreographies which know nothing of each other can share a log.

    Raises:
        DeclarationError: two of them have a service of one name, or mean different events by one name in one topic.
    """
    for (one, first), (other, second) in combinations(choreographies.items(), 2):
        for name in set(first.graph.services) & set(second.graph.services):
            raise DeclarationError(
                f"{one} and {other} both have a service {name!r}",
                why="a service's name is its consumer group, so each would get only a part of the events",
                remedy="rename one of them",
            )
        for name in sorted(set(first.graph.event) & set(second.graph.event)):
            a, b = first.graph.event[name], second.graph.event[name]
            if set(a.topics) & set(b.topics) and (a.key, a.ends) != (b.key, b.ends):
                raise DeclarationError(
                    f"{one} and {other} mean different events by {name!r} in topic {a.topics[0]}",
                    remedy="give them one key and outcome, or names or topics of their own",
                )
