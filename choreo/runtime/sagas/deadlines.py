"""Deadlines: which timers are set, and what stops them. Pure.

All that is to be known of a deadline in a saga is one note, written anew with each change. A time is that of an event's
producer, in ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgpack

from choreo.durations import seconds
from choreo.errors import ConfigurationError
from choreo.events import Metadata
from choreo.handler import Deadline
from choreo.runtime.sagas.memory import Memory
from choreo.service import Service
from choreo.wire.ids import note_keys

KIND = "timers"


class Armed(NamedTuple):
    """A timer that is set.

    Attributes:
        event_id: the event that set it.
        produced_ms: when that was produced.
        due_ms: what stops it must have been produced by then.
        times: which call this will be, from 1.
    """

    event_id: str
    produced_ms: int
    due_ms: int
    times: int


@dataclass
class State:
    """A deadline in a saga.

    Attributes:
        armed: by the event that set them.
        stopped_ms: when the first event was produced that stops them, if one has come.
        latest: when the last event was produced that sets a timer and stops earlier ones, and its id (which decides between
            two of one millisecond); None if none has come.
    """

    armed: dict[str, Armed] = field(default_factory=dict)
    stopped_ms: int | None = None
    latest: tuple[int, str] | None = None

    def stops(self, event_id: str, produced_ms: int, due_ms: int) -> bool:
        """Whether what has come stops a timer that is due then, set by this event."""
        if self.stopped_ms is not None and self.stopped_ms <= due_ms:
            return True
        return self.latest is not None and (produced_ms, event_id) < self.latest and self.latest[0] <= due_ms


def keys(handler: str) -> Callable[[str], bytes]:
    """Where a deadline's note of a saga is."""
    return note_keys("deadline", handler)


def produced_ms(metadata: Metadata, record_ms: int) -> int:
    """When an event was produced; by its record's time if it names none that can be read."""
    try:
        return round(datetime.fromisoformat(metadata.time).timestamp() * 1000)
    except ValueError:
        return record_ms


def state_of(memory: Memory) -> State:
    """What the note says."""
    note = memory.last(KIND)
    if note is None:
        return State()
    armed, stopped, latest = msgpack.unpackb(note.content)
    return State({each[0]: Armed(*each) for each in armed}, stopped, tuple(latest) if latest else None)


def pack(state: State) -> bytes:
    """The content of its note."""
    packed: bytes = msgpack.packb([list(state.armed.values()), state.stopped_ms, state.latest])
    return packed


def keep_ms(state: State, now_ms: int) -> int:
    """Until when the note matters."""
    return max([now_ms, *(armed.due_ms for armed in state.armed.values())])


def stop(state: State, event_id: str, at_ms: int, *, sets: bool) -> list[Armed]:
    """An event of `unless` has come: the timers that it stops, now no longer armed.

    Args:
        sets: whether it is of the class that sets the timer: then it stops what an earlier one set.
    """
    if sets:
        state.latest = max(state.latest or (at_ms, event_id), (at_ms, event_id))
    else:
        state.stopped_ms = at_ms if state.stopped_ms is None else min(state.stopped_ms, at_ms)
    stopped = [armed for armed in state.armed.values() if state.stops(armed.event_id, armed.produced_ms, armed.due_ms)]
    for armed in stopped:
        del state.armed[armed.event_id]
    return stopped


def arm(rule: Deadline, state: State, event_id: str, at_ms: int) -> Armed | None:
    """An event has come that sets the timer: the timer; None if what stops it came before."""
    due_ms = at_ms + round(rule.within * 1000)
    if state.stops(event_id, at_ms, due_ms):
        return None
    armed = state.armed[event_id] = Armed(event_id, at_ms, due_ms, 1)
    return armed


def called(rule: Deadline, state: State, armed: Armed, now_ms: int) -> Armed | None:
    """The handler has been called: the timer of its next call, if there is one. Calls that are long past are left out."""
    del state.armed[armed.event_id]
    pace = round(rule.every * 1000)
    times, due_ms = armed.times + 1, armed.due_ms + pace
    while times < rule.times and due_ms + pace <= now_ms:
        times, due_ms = times + 1, due_ms + pace
    if times > rule.times or state.stops(armed.event_id, armed.produced_ms, due_ms):
        return None
    following = state.armed[armed.event_id] = armed._replace(due_ms=due_ms, times=times)
    return following


def refuse_forgotten(service: Service, keep: str) -> None:
    """Refuse a deadline that comes when nobody remembers any more what its saga's steps did.

    Args:
        keep: for how long notes are kept.

    Raises:
        ConfigurationError: it is as late as that.
    """
    for handler in service.handlers.values():
        rule = handler.rule
        if isinstance(rule, Deadline) and rule.within + rule.every * (rule.times - 1) >= seconds(keep):
            raise ConfigurationError(
                f"deadline {handler} may come later than CHOREO_SAGA_KEEP={keep}",
                why="what steps of its saga did would be forgotten by then, and not be undone",
                remedy="keep notes for longer, in all services of its sagas",
            )
