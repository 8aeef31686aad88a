"""What a handler is to do with an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from choreo.events import Event
from choreo.log.port import Headers, NewRecord

Emitted: TypeAlias = Sequence[tuple[Event, NewRecord]]


class Call(NamedTuple):
    """One call of a handler.

    Attributes:
        arguments: what it is called with, before `ctx`.
        scope: what tells it from other calls of the handler for the same event, in the ids of what it emits.
        compensates: the event that it undoes.
        subject: what it is about, where other events may come to cause the same call; the event that causes it unless given.
        others: the headers of other events that have led to it.
    """

    arguments: tuple[Any, ...]
    scope: str = ""
    compensates: str | None = None
    subject: str = ""
    others: Callable[[], Sequence[Headers]] = tuple


class Turn:
    """What a handler does with an event.

    Attributes:
        calls: none, if the event is only to be noted.
        more: whether the event has a further turn after this one.
    """

    __slots__ = ("calls",)
    more: bool = False

    def __init__(self, calls: Sequence[Call] = ()) -> None:
        self.calls = calls

    def holds(self) -> bool:
        """Whether what was decided is still right after the calls; else everything is decided anew."""
        return True

    def conclude(self, emitted: Emitted) -> None:
        """Add notes and timers to the unit of work; told what the calls emitted, when that counts."""

    def bury(self) -> None:
        """The event goes to the dead letters."""


def _always() -> bool:
    return True


def _nothing(*_: Any) -> None:
    pass


class Decision(Turn):
    """A turn with more to it than its calls: see the methods of `Turn`."""

    __slots__ = ("_bury", "_conclude", "_holds", "more")

    def __init__(
        self,
        calls: Sequence[Call] = (),
        *,
        holds: Callable[[], bool] = _always,
        conclude: Callable[[Emitted], None] = _nothing,
        bury: Callable[[], None] = _nothing,
        more: bool = False,
    ) -> None:
        self.calls = calls
        self.more = more
        self._holds = holds
        self._conclude = conclude
        self._bury = bury

    def holds(self) -> bool:  # noqa: D102 - as in Turn
        return self._holds()

    def conclude(self, emitted: Emitted) -> None:  # noqa: D102 - as in Turn
        self._conclude(emitted)

    def bury(self) -> None:  # noqa: D102 - as in Turn
        self._bury()
