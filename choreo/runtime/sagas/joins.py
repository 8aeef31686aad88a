"""Joins: what has arrived, and whether it fires. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from choreo.errors import ChoreoError
from choreo.events import Event
from choreo.handler import Join
from choreo.log.port import Headers, Record
from choreo.store import records
from choreo.store.port import Note
from choreo.wire.ids import note_keys

_pack = records.packer()
_ARRIVED, _FIRED, _CLOSED = "arrived ", "fired", "closed"


class CountError(ChoreoError):
    """How many events a join has to gather is not known: its function gave no number."""


@dataclass(slots=True)
class State:
    """A join as its notes tell.

    Attributes:
        ended: why it does not fire any more, in words; empty while it may.
        arrived: the notes of what has come, by the place of the event in the declaration.
    """

    ended: str = ""
    arrived: dict[int, list[Note]] = field(default_factory=dict)


_NOTHING = State()  # nobody changes what `state_of` gives


def keys(handler: str) -> Callable[[str], bytes]:
    """Where a join's notes are, by what its events have in common."""
    return note_keys("join", handler)


def state_of(notes: Sequence[Note]) -> State:
    """What the notes of a join say."""
    if not notes:
        return _NOTHING
    state = State()
    for note in notes:
        kind = note.kind
        if kind == _FIRED:
            state.ended = f"it has fired with event {note.content.decode()}"
        elif kind == _CLOSED:
            state.ended = f"event {note.content.decode()} closed it"
        else:
            state.arrived.setdefault(int(kind[len(_ARRIVED) :]), []).append(note)
    return state


def arrived(place: int, record: Record) -> tuple[str, bytes]:
    """The note of an event that has come and does not make the join fire."""
    return f"{_ARRIVED}{place}", _pack(record)


def record_of(note: Note) -> Record:
    """The record of an event that has come."""
    return records.waiter(note.content)


def headers(state: State) -> list[Headers]:
    """The headers of the events that have come."""
    return [record_of(note).headers for notes in state.arrived.values() for note in notes]


def fired(event_id: str) -> tuple[str, bytes]:
    """The note of a join that has fired; it stands for all before it."""
    return _FIRED, event_id.encode()


def closed(event_id: str) -> tuple[str, bytes]:
    """The note of a join that cannot fire any more; it stands for all before it."""
    return _CLOSED, event_id.encode()


def place_of(rule: Join, event_class: type[Event]) -> int | None:
    """The place of an event among those of the join; None for one that closes it."""
    return rule.events.index(event_class) if event_class in rule.events else None


def is_surplus(rule: Join, state: State, place: int) -> bool:
    """Whether an event of this place has come already, and no further one is wanted."""
    return place in state.arrived and not (rule.gathers and place == len(rule.events) - 1)


def is_complete(rule: Join, state: State, place: int, wanted: int) -> bool:
    """Whether one more event, of this place and no surplus, makes the join fire.

    Args:
        wanted: how many of the last event are gathered, where it gathers any.
    """
    if not rule.gathers:
        return len(state.arrived) + 1 >= rule.need
    last = len(rule.events) - 1
    gathered = len(state.arrived.get(last, ())) + (place == last)
    return gathered >= wanted and all(at == place or at in state.arrived for at in range(last))


def count_of(rule: Join, first: Event | None) -> int:
    """How many of the last event are gathered; `first` is the event that tells, if it has come.

    Raises:
        CountError: its function gave no number.
    """
    if not callable(rule.count) or first is None:
        return rule.count if isinstance(rule.count, int) else 0
    count = rule.count(first)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise CountError(
            f"count= gave {count!r} for a {rule.events[0].__name__}", remedy="let it return a number, 0 or more"
        )
    return count
