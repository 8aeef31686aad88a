"""The choreography: the declarations of many services as one graph, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from choreo.events import Event
from choreo.service import Service


def dead_letter_topic(service: str) -> str:
    """The topic of a service's dead letters."""
    return f"dlq.{service}"


@dataclass(frozen=True)
class Choreography:
    """All services of a system, seen as one graph."""

    services: tuple[Service, ...]

    @classmethod
    def of(cls, services: Iterable[Service]) -> Choreography:
        """The choreography of these services."""
        return cls(tuple(services))

    @property
    def event_classes(self) -> tuple[type[Event], ...]:
        """Every event class of every service, each once."""
        return tuple(dict.fromkeys(event for service in self.services for event in service.event_classes))
