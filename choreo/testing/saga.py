"""One saga of a world, as tests look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from choreo.dlq.letters import DeadLetter
from choreo.events import Event
from choreo.saga.outcome import Ending, outcome_of
from choreo.testing.journal import Entry, Journal

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, kw_only=True)
class SagaEvent:
    """One event of a saga.

    Attributes:
        type: its type name.
        event: of the class that the world's services have of it; plain data if they have none.
        service: who emitted it.
        causation: the id of the event that caused it; None for the first.
        compensates: the id of the event whose effect was undone when it was emitted; None if none was.
        time: when it was emitted (RFC 3339).
    """

    id: str
    type: str
    event: Any
    service: str
    causation: str | None
    compensates: str | None
    time: str


class Saga:
    """All events of one correlation id, as far as they have been written.

    Attributes:
        correlation_id: its name.
    """

    def __init__(self, correlation_id: str, journal: Journal) -> None:
        self.correlation_id = correlation_id
        self._journal = journal

    @property
    def events(self) -> list[SagaEvent]:
        """Causes before effects."""
        return [self._event(entry) for entry in self._journal.entries(self.correlation_id)]

    def emitted(self, event_class: type[E]) -> list[E]:
        """Its events of a class."""
        return self._journal.emitted(event_class, self.correlation_id)

    @property
    def types(self) -> list[str]:
        """The type names of its events, causes before effects."""
        return [entry.metadata.type_name for entry in self._journal.entries(self.correlation_id)]

    @property
    def outcome(self) -> Ending | None:
        """What its terminal events (`ends=`) say: "completed", "failed", "conflict" if they differ, None while it is open."""
        classes = self._journal.classes
        return outcome_of(classes[name].contract.ends for name in self.types if name in classes)

    @property
    def parent(self) -> str | None:
        """The correlation id of the saga in which it was started; None if it came from outside."""
        entries = self._journal.entries(self.correlation_id)
        return entries[0].metadata.parent_id if entries else None

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What failed for good in it."""
        return [letter for letter in self._journal.dead_letters if letter.correlation_id == self.correlation_id]

    def tree(self) -> str:
        """Its events, each below its cause, for reading."""
        entries = self._journal.entries(self.correlation_id)
        known = {entry.metadata.event_id: entry for entry in entries}
        below: dict[str | None, list[Entry]] = {}
        for entry in entries:
            cause = entry.metadata.causation_id
            below.setdefault(cause if cause in known else None, []).append(entry)
        lines = [f"saga {self.correlation_id}: {self.outcome or 'open'}"]

        def write(cause: str | None, indent: str) -> None:
            for number, entry in enumerate(below.get(cause, ())):
                last = number == len(below[cause]) - 1
                lines.append(f"{indent}{'└─' if last else '├─'} {self._words(entry, known)}")
                write(entry.metadata.event_id, indent + ("   " if last else "│  "))

        write(None, "")
        lines += [f"dead letter: {words(letter)}" for letter in self.dead_letters]
        return "\n".join(lines)

    def _words(self, entry: Entry, known: dict[str, Entry]) -> str:
        about = entry.metadata
        said = [f"{about.type_name} {(entry.record.key or b'').decode()}", f"from {about.source}"]
        if about.compensates is not None:
            undone = known.get(about.compensates)
            said.append(f"undoes {undone.metadata.type_name if undone else about.compensates}")
        ends = (
            self._journal.classes[about.type_name].contract.ends if about.type_name in self._journal.classes else None
        )
        return ", ".join([*said, *([f"ends it as {ends}"] if ends else [])])

    def _event(self, entry: Entry) -> SagaEvent:
        about = entry.metadata
        return SagaEvent(
            id=about.event_id,
            type=about.type_name,
            event=self._journal.content(entry),
            service=about.source,
            causation=about.causation_id,
            compensates=about.compensates,
            time=about.time,
        )

    def __repr__(self) -> str:
        return self.tree()


def words(letter: DeadLetter) -> str:
    """A dead letter in one line."""
    who = f"{letter.service}.{letter.handler}" if letter.handler else letter.service
    what = letter.type_name or str(letter.place)
    return f"{what} {letter.key}, {letter.kind} at {who} after {letter.attempts} calls: {letter.exception}: {letter.message}"
