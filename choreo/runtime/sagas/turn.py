"""What a handler is to do with an event."""

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
        subject: what it is about, where other events may come to cause the same call; the event that causes it unless given.
    """

    arguments: tuple[Any, ...]
    scope: str = ""
    compensates: str | None = None
    subject: str = ""


def _always() -> bool:
    return True


def _nothing(_: Emitted) -> None:
    pass


class Turn:
    """What a handler does with an event.

    Attributes:
        calls: none, if the event is only to be noted.
        holds: whether what was decided is still right after the calls; else everything is decided anew.
        conclude: told what the calls emitted, when that counts; adds notes and timers to the unit of work.
        bury: called when the event goes to the dead letters.
        more: whether the event has a further turn after this one.
    """

    __slots__ = ("bury", "calls", "conclude", "holds", "more")

    def __init__(
        self,
        calls: Sequence[Call] = (),
        *,
        holds: Callable[[], bool] = _always,
        conclude: Callable[[Emitted], None] = _nothing,
        bury: Callable[[], None] = lambda: None,
        more: bool = False,
    ) -> None:
        self.calls = calls
        self.holds = holds
        self.conclude = conclude
        self.bury = bury
        self.more = more
