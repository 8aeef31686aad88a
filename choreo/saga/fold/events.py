"""The events of a saga: copies of one merged, causes before effects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from choreo.dlq.letters import Place
from choreo.saga.sighting import Again, Letter, Settled, Sighting


class Raw(NamedTuple):
    """An event as its records tell it.

    Attributes:
        seen: its first record.
        places: where its records lie, in order.
        gone: whether only a retry or dead-letter topic tells of it.
        others: what its further records say of type and source, if that is something else.
    """

    seen: Sighting
    places: tuple[Place, ...]
    gone: bool
    others: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class Sorted:
    """Sightings by what they are.

    Attributes:
        events: by id.
        agains, letters: with where they lie and the event that they are about.
        settled: by the id of the dead letter.
    """

    events: dict[str, Raw] = field(default_factory=dict)
    agains: list[tuple[str, Place, Again]] = field(default_factory=list)
    letters: list[tuple[str, Letter]] = field(default_factory=list)
    settled: dict[str, list[Settled]] = field(default_factory=dict)


def sort(sightings: Iterable[Sighting]) -> Sorted:
    """Sightings by what they are, in whatever order they come."""
    found = Sorted()
    events, told, copies = found.events, [], dict[str, list[Sighting]]()
    for seen in sightings:
        if seen.kind == "event":
            same = events.get(seen.event_id)
            if same is None:
                events[seen.event_id] = Raw(seen, (seen.place,), False)
            else:
                copies.setdefault(seen.event_id, [same.seen]).append(seen)
        elif isinstance(seen.said, Settled):
            found.settled.setdefault(seen.said.of, []).append(seen.said)
        else:
            told.append(seen)
    events |= {event_id: _merged(every) for event_id, every in copies.items()}
    for seen in told:
        if isinstance(seen.said, Again):
            found.agains.append((seen.event_id, seen.place, seen.said))
        elif isinstance(seen.said, Letter):
            found.letters.append((seen.event_id, seen.said))
    if told:
        _add_gone(events, told)
    return found


def _merged(every: Iterable[Sighting]) -> Raw:
    """All records of one event; a producer that has lost its head writes it thousands of times."""
    lying = sorted({seen.place: seen for seen in every}.items())
    first = lying[0][1]
    said = {(seen.type_name, seen.source) for _, seen in lying}
    return Raw(first, tuple(place for place, _ in lying), False, frozenset(said - {(first.type_name, first.source)}))


def _add_gone(events: dict[str, Raw], told: Iterable[Sighting]) -> None:
    """Events of which only a retry or a dead letter tells: their records are gone, or have not been read yet."""
    missing: dict[str, Sighting] = {}
    for seen in told:
        if seen.event_id not in events and isinstance(seen.said, Again | Letter):
            other = missing.get(seen.event_id)
            if other is None or seen.place < other.place:
                missing[seen.event_id] = seen
    for event_id, seen in missing.items():
        if isinstance(seen.said, Again | Letter):
            events[event_id] = Raw(seen._replace(place=seen.said.of), (seen.said.of,), True)


def in_order(events: Mapping[str, Raw]) -> list[Raw]:
    """Causes before effects: by how many causes lie before each, then by its first place.

    Causes that go round in a circle, which no producer of ours writes, are cut at the first place.
    """
    effects: dict[str, list[Raw]] = {}
    level: list[Raw] = []
    for event_id, raw in events.items():
        cause = raw.seen.causation_id
        if cause is None or cause == event_id or cause not in events:
            level.append(raw)
        elif (beside := effects.get(cause)) is None:
            effects[cause] = [raw]
        else:
            beside.append(raw)
    ordered = _with_effects(level, effects)
    for cut in sorted((raw for beside in effects.values() for raw in beside), key=_first_place) if effects else ():
        beside = effects.get(cut.seen.causation_id or "", [])
        if cut in beside:
            beside.remove(cut)
            ordered += _with_effects([cut], effects)
    return ordered


def _with_effects(level: list[Raw], effects: dict[str, list[Raw]]) -> list[Raw]:
    """These events and all that came of them, which is taken out of `effects`."""
    ordered: list[Raw] = []
    while level:
        level.sort(key=_first_place)
        ordered += level
        level = [raw for cause in level for raw in effects.pop(cause.seen.event_id, ())] if effects else []
    return ordered


def _first_place(raw: Raw) -> Place:
    return raw.places[0]
