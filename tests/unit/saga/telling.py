"""Sightings of one saga, told in a few words; each event lies in a partition of its own, so that anybody may have read it or not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from choreo.dlq.letters import Place
from choreo.graph import Graph
from choreo.log.port import TopicPartition
from choreo.saga.fold import fold
from choreo.saga.model import Duty, Saga, Surroundings
from choreo.saga.sighting import Again, Letter, Settled, Sighting
from choreo.wire.ids import derive_event_id
from tests.tracker.flows import CHOREOGRAPHY

START = 1_700_000_000_000
"""22:13:20 UTC on 2023-11-14."""
SAGA = "018bcfe5-6800-7000-8000-000000000000"


@dataclass
class Telling:
    """A saga as it is told; times are ms after `START`."""

    graph: Graph = field(default_factory=lambda: CHOREOGRAPHY.graph)
    saga: str = SAGA
    sightings: list[Sighting] = field(default_factory=list)
    committed: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)
    beginnings: dict[TopicPartition, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def event(
        self, type_name, by="", cause=None, *, ordinal=0, scope="", at=0, written=None, read="all", event_id=None, source=None,
        key="k", topic=None, compensates=None, parent=None, oddity="", place=None,
    ) -> Sighting:  # fmt: skip
        """An event that a handler (`service.name`) has emitted for a cause, or that comes from outside."""
        service, _, name = by.rpartition(".")
        if event_id is None:
            event_id = (
                self.saga
                if cause is None
                else derive_event_id(cause.event_id, service, name + scope, ordinal, time_ms=0)
            )
        node = self.graph.event.get(type_name)
        at_place = place or Place(topic or (node.topics[0] if node else "odd"), next(self.numbers), 7)
        produced = START + at
        seen = Sighting(
            at_place, "event", self.saga, event_id, type_name, source or service or "portal",
            cause.event_id if cause else None, compensates.event_id if compensates else None, parent, produced,
            produced if written is None else START + written, key, "", oddity,
        )  # fmt: skip
        self.sightings.append(seen)
        groups = self.graph.services if read == "all" else read
        for group in groups:
            self.committed[group, at_place.of] = at_place.offset + 1
        return seen

    def again(self, handler, event, *, attempt=1, due=0, redrives=0, discard=False, read=False, first=0) -> None:
        """A record of the retry topic."""
        service = handler.rpartition(".")[0]
        place = Place(f"retry.{service}", next(self.numbers), 3)
        said = Again(handler, event.place, attempt, START + due if due else 0, START + first, redrives, discard)
        self.sightings.append(event._replace(place=place, kind="again", said=said))
        if read:
            self.committed[service, place.of] = 4

    def letter(
        self, handler, event, *, letter_id="4f2a0123456789", redrives=0, at=1000, first=900, parked=False
    ) -> str:
        """A dead letter; returns its id."""
        service = handler.rpartition(".")[0]
        said = Letter(
            letter_id, handler, event.place, "exhausted", "services.shop.GatewayError", "no answer", "f", 5, START + first,
            START + at, redrives, parked,
        )  # fmt: skip
        place = Place(f"dlq.{service}", next(self.numbers), 0)
        self.sightings.append(event._replace(place=place, kind="letter", said=said))
        return letter_id

    def settle(self, letter_id, how, *, at=2000, failed=None) -> None:
        """What was done about a dead letter."""
        said = Settled(letter_id, how, "anna", "because", START + at, None if failed is None else START + failed)
        place = Place("dlq.x", next(self.numbers), 0)
        empty = ("", "", "", "", None, None, None)
        self.sightings.append(Sighting(place, "settled", *empty, START + at, START + at, "", "", "", said))

    def fold(self, *, now=60_000, reached=None) -> Saga:
        """The saga at a moment."""
        reached_ms = START + (now if reached is None else reached)
        return fold(self.sightings, self.graph, Surroundings(START + now, self.committed, self.beginnings, reached_ms))


def duty(saga: Saga, handler: str, type_name: str = "") -> Duty:
    """The only duty of a handler about an event of this type (or any)."""
    types = {event.id: event.type for event in saga.events}
    (found,) = [each for each in saga.duties if each.handler == handler and type_name in {"", types[each.event]}]
    return found


def statuses(saga: Saga, handler: str) -> list[str]:
    """Of all duties of a handler, in the order of events."""
    return [each.status for each in saga.duties if each.handler == handler]
