"""Turns that leave notes: of a step that may have to be undone, and of joins. One object each, made for every event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from choreo.events import Event
from choreo.runtime.partitions import Job
from choreo.runtime.sagas import steps
from choreo.runtime.sagas.memory import Memory
from choreo.runtime.sagas.turn import Call, Emitted, Turn

Arrive: TypeAlias = Callable[[Memory, int, Job], None]
"""Notes an event of a join, by its place, that does not make it fire."""


Keep: TypeAlias = Callable[[Memory, str, bytes, int], None]
"""Adds a note that matters at least until a time, ms since the epoch."""


class Note(Protocol):
    """Adds a note that matters from now on, and may stand for all before it."""

    def __call__(self, memory: Memory, kind: str, content: bytes, *, alone: bool = False) -> None:
        """Add it."""


class StepTurn(Turn):
    """A turn of a handler that some compensation undoes; `turn` is that of its rule, if it has one."""

    __slots__ = ("_keep", "_memory", "_notes", "_turn", "_undoes")

    def __init__(
        self, keep: Keep, calls: Sequence[Call], memory: Memory, undoes: frozenset[type[Event]], turn: Turn | None
    ) -> None:
        self.calls = calls
        self.more = False
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


class _Joined(Turn):
    """A turn of a join: it holds as long as nothing else is noted."""

    __slots__ = ("_memory", "_notes")

    def __init__(self, memory: Memory, calls: Sequence[Call] = ()) -> None:
        self.calls = calls
        self.more = False
        self._memory = memory
        self._notes = memory.notes

    def holds(self) -> bool:
        return self._memory.notes is self._notes


class Arrival(_Joined):
    """An event has come, and others are missing."""

    __slots__ = ("_arrive", "_job", "_place")

    def __init__(self, arrive: Arrive, memory: Memory, place: int, job: Job) -> None:
        super().__init__(memory)
        self._arrive = arrive
        self._place = place
        self._job = job

    def conclude(self, _: Emitted) -> None:  # noqa: D102 - as in Turn
        self._arrive(self._memory, self._place, self._job)


class Ending(_Joined):
    """It fires, or never will: nothing that comes later counts."""

    __slots__ = ("_note", "_told")

    def __init__(self, note: Note, memory: Memory, told: tuple[str, bytes], calls: Sequence[Call] = ()) -> None:
        super().__init__(memory, calls)
        self._note = note
        self._told = told

    def conclude(self, _: Emitted) -> None:  # noqa: D102 - as in Turn
        self._note(self._memory, *self._told, alone=True)
