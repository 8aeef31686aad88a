"""Played sagas as records in partitions, with the offsets that groups have committed.

A partition of a topic is one of those that the same groups have read to the end and the others not at all: what nobody has
read lies beside its like. So each group's committed offset says of each record what was decided.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from choreo.choreography import dead_letter_topic, retry_topic
from choreo.dlq.letters import DeadLetter, read
from choreo.dlq.records import Reason, resolving
from choreo.events import Metadata
from choreo.log.port import Headers, NewRecord, Record, TopicPartition
from choreo.runtime.clock import rfc3339
from choreo.runtime.deadletter import Failed, dead_letter
from choreo.runtime.parking import retry_record
from choreo.saga.model import Surroundings
from choreo.wire import envelope
from tests.tracker.play import GRAPH, TAKERS, Again, Happened, Letter, Play
from tests.tracker.truth import NOW_MS, Truth

_VALUE = b"\x00\x00\x00\x00\x01\x02a"
_MOST_BYTES = 1_000_000
READERS: dict[str, frozenset[str]] = {}
"""The groups that read a topic."""
for _topic in {topic for event in GRAPH.events for topic in event.topics}:
    _types = [event.name for event in GRAPH.events if _topic in event.topics]
    READERS[_topic] = frozenset(node.service for name in _types for node in TAKERS.get(name, ()))


class GatewayError(Exception):
    """Why handlers of plays fail."""


@dataclass
class World:
    """Sagas laid over a log.

    Attributes:
        truths: what is true of them.
        records: in the order in which they are to be appended, each with its partition; the same partitions must be empty.
        partitions: how many partitions each topic needs.
        around: what is known beside the records.
    """

    truths: Sequence[Truth]
    seed: int = 0
    duplicates: float = 0.05
    late: float = 0.05
    shuffled: bool = True
    """Whether records lie in any order in their partition; else in that in which they were written."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self.lying: dict[TopicPartition, list[Record]] = defaultdict(list)
        self._numbers: dict[tuple[str, frozenset[str]], int] = {}
        self._unread: dict[TopicPartition, frozenset[str]] = {}
        self._places: dict[int, Record] = {}
        self._letters: dict[int, DeadLetter] = {}
        self._lay(list(self._firsts()), list(self._later()))
        self.around = self._surroundings()

    @property
    def partitions(self) -> dict[str, int]:
        """How many each topic needs."""
        found = dict.fromkeys(GRAPH.topics, 1)
        for topic, number in self.lying:
            found[topic] = max(found.get(topic, 0), number + 1)
        return found

    @property
    def records(self) -> list[NewRecord]:
        """To be appended in this order: partitions mixed, the order within each as it is."""
        chance, ahead = random.Random(self.seed), [list(reversed(records)) for records in self.lying.values()]
        order = [number for number, records in enumerate(ahead) for _ in records]
        chance.shuffle(order)
        mixed = [ahead[number].pop() for number in order]
        return [NewRecord(r.topic, r.key, r.value, r.headers, r.timestamp, r.partition) for r in mixed]

    # --- events -------------------------------------------------------------------------------------------------------

    def _firsts(self) -> Iterator[tuple[Play, Happened]]:
        for truth in self.truths:
            for event in truth.play.events:
                if not (truth.loses_start and event is truth.play.first):
                    yield truth.play, event

    def _lay(self, events: list[tuple[Play, Happened]], later: list[Callable[[], None]]) -> None:
        """Events in any order, some of them twice and some late; then what tells of places that are known by now."""
        self._chance.shuffle(events)
        if not self.shuffled:
            events.sort(key=lambda each: each[1].at_ms)
        late = [each for each in events if self._chance.random() < self.late]
        lates = {id(event) for _, event in late}
        for play, event in [each for each in events if id(each[1]) not in lates] + late:
            written_ms = self._chance.randint(event.at_ms, NOW_MS) if id(event) in lates else event.at_ms
            readers = READERS.get(event.topic, frozenset())
            takers = {node.service for node in TAKERS.get(event.type, ())}
            record = self._put(_record_of(play, event, written_ms), readers & takers - event.read_by)
            self._places[id(event)] = record
        for act in self._in_any_order(later):
            act()

    def _in_any_order(self, later: list[Callable[[], None]]) -> list[Callable[[], None]]:
        return sorted(later, key=lambda _: self._chance.random())

    def _put(self, record: NewRecord, unread: frozenset[str]) -> Record:
        """Lay a record beside its like, now and then twice."""
        known = self._numbers
        at = record.topic, unread
        if at not in known:
            known[at] = sum(topic == record.topic for topic, _ in known)
        where = TopicPartition(record.topic, known[at])
        self._unread[where] = unread
        copies = 2 if self._chance.random() < self.duplicates else 1
        for _ in range(copies):
            lies = Record(
                *where, len(self.lying[where]), record.timestamp or 0, record.key, record.value, record.headers
            )
            self.lying[where].append(lies)
        return self.lying[where][-copies]

    # --- retries and dead letters -------------------------------------------------------------------------------------

    def _later(self) -> Iterator[Callable[[], None]]:
        for truth in self.truths:
            for again in truth.play.agains:
                if again.letter is None:
                    yield lambda again=again: self._retry(again)
            for letter in truth.play.letters:
                back = next((again for again in truth.play.agains if again.letter is letter), None)
                yield lambda letter=letter, back=back: self._bury(letter, back)

    def _original(self, event: Happened) -> Record:
        return self._places[id(event)]

    def _retry(self, again: Again) -> None:
        node = again.node
        record = retry_record(
            node.service, self._original(again.of), handler=node.name, attempt=again.attempt, due_ms=again.due_ms,
            first_failed_ms=again.first_ms,
        )  # fmt: skip
        self._put(record, frozenset() if again.read else frozenset({node.service}))

    def _bury(self, letter: Letter, back: Again | None) -> None:
        node, original = letter.node, self._original(letter.of)
        due = f"\0{letter.due_ms + 500}" if letter.due_ms is not None else ""
        failed = Failed(
            service=node.service, handler=node.name, stage="handle",
            kind="compensation" if node.kind == "compensation" else "exhausted", error=GatewayError("no answer"),
            attempts=letter.attempts, first_failed_ms=letter.first_ms, now_ms=letter.at_ms,
            subject=f"{letter.of.source}\0{letter.of.id}{due}", redrives=letter.redrives, parked=False,
        )  # fmt: skip
        lies = self._put(dead_letter(original, failed, _MOST_BYTES), frozenset())
        if not letter.settled:
            return
        told = read(lies)
        assert isinstance(told, DeadLetter)
        reason = Reason(kind=letter.settled, by="anna", why="the gateway is back")  # type: ignore[arg-type]
        for record in resolving(told, original, reason, letter.settled_ms, edited=False):
            is_back = record.topic == retry_topic(node.service)
            is_unread = is_back and (back is None or not back.read)
            self._put(record, frozenset({node.service}) if is_unread else frozenset())

    def _surroundings(self) -> Surroundings:
        committed: dict[tuple[str, TopicPartition], int] = {}
        for where, records in self.lying.items():
            if where.topic.startswith(dead_letter_topic("")):
                continue
            retries = retry_topic("")
            groups = (
                {where.topic.removeprefix(retries)} if where.topic.startswith(retries) else READERS.get(where.topic, ())
            )
            for group in groups:
                if group not in self._unread[where]:
                    committed[group, where] = len(records)
                elif self._chance.random() < 0.5:
                    committed[group, where] = 0
        return Surroundings(NOW_MS, committed, dict.fromkeys(self.lying, 0), NOW_MS)


def _record_of(play: Play, event: Happened, written_ms: int) -> NewRecord:
    """The record of an event, as its producer writes it."""
    key = f"k-{play.name[-6:]}".encode()
    meta = Metadata(
        event.id, event.type, event.source, rfc3339(event.at_ms), play.name,
        event.cause.id if event.cause else None, None, None, event.compensates, None,
    )  # fmt: skip
    if event.form == "structured":
        told = {"specversion": "1.0", "id": event.id, "type": event.type, "source": event.source, "time": meta.time}
        value = json.dumps({**told, "data": {"trip": "t"}}).encode()
        return NewRecord(event.topic, key, value, [("content-type", b"application/cloudevents+json")], written_ms)
    headers: Headers = envelope.write(meta, envelope.constant(event.type, "1"), key)
    if event.form == "bare":
        headers = [header for header in headers if header[0] != "ce_correlationid"]
    return NewRecord(event.topic, key, _VALUE, headers, written_ms)
