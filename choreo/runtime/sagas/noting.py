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


class Note(Protocol):
    """What adds a note to the unit of work."""

    def __call__(self, memory: Memory, kind: str, content: bytes, *, alone: bool = False) -> None:
        """Add it."""


class StepTurn(Turn):
    """A turn of a handler that some compensation undoes."""

    __slots__ = ("_changes", "_memory", "_note", "_turn", "_undoes")

    def __init__(self, note: Note, turn: Turn, memory: Memory, undoes: frozenset[type[Event]]) -> None:
        self.calls = turn.calls
        self.more = turn.more
        self._note = note
        self._turn = turn
        self._memory = memory
        self._changes = memory.changes
        self._undoes = undoes

    def holds(self) -> bool:  # noqa: D102 - as in Turn
        memory = self._memory
        return (memory.changes == self._changes or steps.failure_of(memory) is None) and self._turn.holds()

    def conclude(self, emitted: Emitted) -> None:  # noqa: D102 - as in Turn
        self._turn.conclude(emitted)
        undoes = self._undoes
        done = [(event.contract.type_name, record) for event, record in emitted if type(event) in undoes]
        if done:
            self._note(self._memory, *steps.done(done))

    def bury(self) -> None:  # noqa: D102 - as in Turn
        self._turn.bury()


class _Joined(Turn):
    """A turn of a join: it holds as long as nothing else is noted."""

    __slots__ = ("_changes", "_memory")

    def __init__(self, memory: Memory, changes: int, calls: Sequence[Call] = ()) -> None:
        self.calls = calls
        self.more = False
        self._memory = memory
        self._changes = changes

    def holds(self) -> bool:
        return self._memory.changes == self._changes


class Arrival(_Joined):
    """An event has come, and others are missing."""

    __slots__ = ("_arrive", "_job", "_place")

    def __init__(self, arrive: Arrive, memory: Memory, changes: int, place: int, job: Job) -> None:
        super().__init__(memory, changes)
        self._arrive = arrive
        self._place = place
        self._job = job

    def conclude(self, _: Emitted) -> None:  # noqa: D102 - as in Turn
        self._arrive(self._memory, self._place, self._job)


class Ending(_Joined):
    """It fires, or never will: nothing that comes later counts."""

    __slots__ = ("_note", "_told")

    def __init__(
        self, note: Note, memory: Memory, changes: int, told: tuple[str, bytes], calls: Sequence[Call] = ()
    ) -> None:
        super().__init__(memory, changes, calls)
        self._note = note
        self._told = told

    def conclude(self, _: Emitted) -> None:  # noqa: D102 - as in Turn
        self._note(self._memory, *self._told, alone=True)
