"""Everything that was written to the log of a world, as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from choreo.choreography import dead_letter_topic, retry_topic
from choreo.dlq.letters import DeadLetter, read
from choreo.errors import WireError
from choreo.events import Event, Metadata
from choreo.log.port import NewRecord, Record
from choreo.wire import Codec

E = TypeVar("E", bound=Event)

_DEAD_LETTERS, _RETRIES = dead_letter_topic(""), retry_topic("")


@dataclass(frozen=True)
class Entry:
    """An event in the log: what travels with it, and its record."""

    metadata: Metadata
    record: Record


class Journal:
    """The events of a world in the order in which they were written, each once: copies of an event change nothing.

    Args:
        classes: the event classes that are known, by type name; each event is shown as one of these.

    Attributes:
        dead_letters: in the order in which they were written.
    """

    def __init__(self, codec: Codec, classes: dict[str, type[Event]]) -> None:
        self.dead_letters: list[DeadLetter] = []
        self.classes = classes
        self._codec = codec
        self._entries: dict[tuple[str, str], Entry] = {}
        self._letters: set[str] = set()

    def add(self, records: Sequence[NewRecord]) -> None:
        """These were written."""
        for record in records:
            lies = Record(
                record.topic, 0, len(self._entries), record.timestamp or 0, record.key, record.value, record.headers
            )
            if record.topic.startswith(_DEAD_LETTERS):
                self._add_letter(lies)
            elif not record.topic.startswith(_RETRIES):
                metadata = self._codec.metadata(lies)
                self._entries.setdefault((metadata.source, metadata.event_id), Entry(metadata, lies))

    def _add_letter(self, record: Record) -> None:
        letter = read(record)
        if isinstance(letter, DeadLetter) and letter.id not in self._letters:
            self._letters.add(letter.id)
            self.dead_letters.append(letter)

    def emitted(self, event_class: type[E], correlation_id: str | None = None) -> list[E]:
        """All events of a class, or those of one saga."""
        name = event_class.contract.type_name
        return [
            self._codec.decode(entry.record, event_class)
            for entry in self._entries.values()
            if entry.metadata.type_name == name and correlation_id in {None, entry.metadata.correlation_id}
        ]

    def entries(self, correlation_id: str) -> list[Entry]:
        """The events of a saga. Each comes after its cause, for who emitted it had read that in the log."""
        return [entry for entry in self._entries.values() if entry.metadata.correlation_id == correlation_id]

    @property
    def correlation_ids(self) -> list[str]:
        """The sagas, in the order in which they began."""
        return list(dict.fromkeys(entry.metadata.correlation_id for entry in self._entries.values()))

    def content(self, entry: Entry) -> Any:
        """The event of an entry: of its class, else as plain data; None if it cannot be read."""
        try:
            if event_class := self.classes.get(entry.metadata.type_name):
                return self._codec.decode(entry.record, event_class)
            return self._codec.decode_any(entry.record)[1]
        except WireError:
            return None
