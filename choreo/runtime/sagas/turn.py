"""What a handler is to do with an event. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from choreo.events import Event
from choreo.log.port import NewRecord

Emitted: TypeAlias = Sequence[tuple[Event, NewRecord]]


class Call(NamedTuple):
    """One call of a handler.

    Attributes:
        arguments: what it is called with, before `ctx`.
        scope: what tells it from other calls of the handler for the same event, in the ids of what it emits.
        compensates: the event that it undoes.
    """

    arguments: tuple[Any, ...]
    scope: str = ""
    compensates: str | None = None


class Turn(NamedTuple):
    """What a handler does with an event.

    Attributes:
        calls: none, if the event is only to be noted.
        holds: whether what was decided is still right after the calls; else everything is decided anew.
        conclude: told what the calls emitted, when that counts; adds notes and timers to the unit of work.
    """

    calls: Sequence[Call]
    holds: Callable[[], bool] = lambda: True
    conclude: Callable[[Emitted], None] = lambda _: None
