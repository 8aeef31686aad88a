"""Turns that leave notes: of a step that may have to be undone, and of joins. One object each, made for every event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from choreo.events import Event
from choreo.runtime.sagas import steps
from choreo.runtime.sagas.memory import Memory
from choreo.runtime.sagas.turn import Call, Emitted, Turn
from choreo.store.port import Note

Keep: TypeAlias = Callable[[Memory, str, bytes, int], None]
"""Adds a note that matters at least until a time, ms since the epoch."""


class StepTurn(Turn):
    """A turn of a handler that some compensation undoes; `turn` is that of its rule, if it has one."""

    __slots__ = ("_keep", "_memory", "_notes", "_turn", "_undoes")

    def __init__(
        self, keep: Keep, calls: Sequence[Call], memory: Memory, undoes: frozenset[type[Event]], turn: Turn | None
    ) -> None:
        self.calls = calls
        self._keep = keep
        self._turn = turn
        self._memory = memory
        self._notes = memory.notes
        self._undoes = undoes

    def holds(self) -> bool:  # noqa: D102 - as in Turn
        memory = self._memory
        if memory.notes is not self._notes and steps.failure_of(memory) is not None:
            return False
        return self._turn is None or self._turn.holds()

    def conclude(self, emitted: Emitted) -> None:  # noqa: D102 - as in Turn
        if self._turn is not None:
            self._turn.conclude(emitted)
        done = steps.done(emitted, self._undoes)
        if done is not None:
            self._keep(self._memory, steps.DONE, done, emitted[0][1].timestamp or 0)

    def bury(self) -> None:  # noqa: D102 - as in Turn
        if self._turn is not None:
            self._turn.bury()


class JoinTurn(Turn):
    """A turn of a join, decided from `notes`, which holds as long as nothing else is noted; `note` writes its own."""

    __slots__ = ("_memory", "_note", "_notes")

    def __init__(
        self, memory: Memory, notes: Sequence[Note], note: Callable[[], None], calls: Sequence[Call] = ()
    ) -> None:
        self.calls = calls
        self._memory = memory
        self._notes = notes
        self._note = note

    def holds(self) -> bool:  # noqa: D102 - as in Turn
        return self._memory.notes is self._notes

    def conclude(self, _: Emitted) -> None:  # noqa: D102 - as in Turn
        self._note()
