"""Sagas that went the same way: folded once, then known by their shape. Pure.

Nearly all sagas of a log have ended, in one of a few ways: the same events, caused by each other in the same order, all
read by everybody. What one of them is, so is the next, but for its ids, its key and its times. Reading a log from its
beginning takes a third of the time by that.

A shape holds all that a fold looks at. What else could matter is kept out: sagas with retries, dead letters, copies or
oddities, those that last so long that a deadline may be over, and those whose emitters only their ids tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from choreo.graph import Graph, Timing
from choreo.log.port import TopicPartition
from choreo.saga.fold import fold
from choreo.saga.fold.declared import declared
from choreo.saga.fold.words import moment
from choreo.saga.model import Saga, Surroundings
from choreo.saga.sighting import Sighting
from choreo.saga.store.port import Summary
from choreo.saga.tracker.summary import summary_of

Shape: TypeAlias = tuple[object, ...]
_MOST, _LARGEST = 5_000, 64
"""How many shapes are remembered, and how many events a saga with one has at most."""
_ENDED = frozenset({"completed", "compensated"})
_PROBE = 1_000
"""Every so many sagas one is folded all the same, and compared."""


class _Known(NamedTuple):
    """What sagas of a shape are.

    Attributes:
        first: the place of the first event among all.
        told: the places of the events whose times the reason tells, with the pieces of text around them.
    """

    summary: Summary
    first: int
    pieces: tuple[str, ...]
    told: tuple[int, ...]


class Shapes:
    """The shapes that have been met, of sagas of one choreography.

    Attributes:
        known, folded: how many sagas were known by their shape, and how many were folded.
        wrong: how many shapes turned out not to say all.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._declared = declared(graph)
        timers = {handler.id: handler.rule for handler in graph.handlers if isinstance(handler.rule, Timing)}
        self._timers = frozenset(timers)
        self._within_ms = min((round(rule.within * 1000) for rule in timers.values()), default=2**62)
        self._known: dict[Shape, _Known | None] = {}
        self._floors: dict[TopicPartition, int] = {}
        self.known = self.folded = self.wrong = 0

    def around(self, committed: Mapping[tuple[str, TopicPartition], int]) -> None:
        """What groups have committed by now."""
        self._floors.clear()
        groups: dict[str, set[str]] = {}
        for edge in self._graph.edges:
            if edge.kind != "emits":
                for topic in edge.topics:
                    groups.setdefault(topic, set()).add(edge.handler.partition(".")[0])
        for at in {at for _, at in committed}:
            readers = groups.get(at.topic, ())
            self._floors[at] = min((committed.get((group, at), -1) for group in readers), default=2**62)

    def summary(self, seen: Sequence[Sighting]) -> Summary | None:
        """What a saga is by its shape; None if that has to be found out."""
        ordered = sorted(seen)
        shape = self._shape(ordered)
        known = self._known.get(shape) if shape is not None else None
        if known is None:
            return None
        self.known += 1
        if self.known % _PROBE == 0:
            return None
        return _told(known, ordered)

    def learn(self, seen: Sequence[Sighting], saga: Saga, around: Surroundings) -> None:
        """Remember what a saga turned out to be, if sagas of its shape are all so."""
        self.folded += 1
        ordered = sorted(seen)
        shape = self._shape(ordered)
        if shape is None or len(self._known) >= _MOST:
            return
        if shape in self._known:
            known = self._known[shape]
            if known is not None and _told(known, ordered) != summary_of(saga):
                self._known[shape], self.wrong = None, self.wrong + 1
            return
        self._known[shape] = self._generalised(ordered, saga, around)

    def _shape(self, ordered: Sequence[Sighting]) -> Shape | None:
        """All that a fold looks at, but for ids, keys and times; None if that is not all."""
        number = len(ordered)
        if number > _LARGEST:
            return None
        places = {seen[3]: place for place, seen in enumerate(ordered)}
        if len(places) < number:
            return None
        keys = {"": -1}
        floors, parts, first, last = self._floors, [], ordered[0][9], 0
        for place, seen in enumerate(ordered):
            at, kind, saga, event_id, name, source, cause, undone, parent, produced, _, key, _, odd, _ = seen
            if kind != "event" or odd or floors.get(at[:2], -1) <= at[2]:  # type: ignore[call-overload] # equal to its partition
                return None
            first, last = min(first, produced), max(last, produced)
            caused = None if cause is None else places.get(cause, -1)
            undoes = None if undone is None else places.get(undone, -1)
            same = keys.setdefault(key, place)
            parts.append((name, source, at[0], caused, undoes, parent is not None, event_id == saga, same))
        if last - first >= self._within_ms:
            return None
        times = sorted(range(number), key=lambda place: ordered[place][9])  # equal ones by place, as the fold has it
        return (*parts, *times)

    def _generalised(self, ordered: Sequence[Sighting], saga: Saga, around: Surroundings) -> _Known | None:
        """What all sagas of this one's shape are; None if not all are the same, or that is not certain."""
        # A timer that was not stopped may have gone off unseen: that is told by its time alone.
        timed = any(duty.handler in self._timers and duty.status != "stopped" for duty in saga.duties)
        at_rest = saga.state in _ENDED and saga.ended_ms is not None and saga.changes_ms is None and not saga.expected
        if not at_rest or timed or self._told_by_ids(ordered):
            return None
        # The same saga, with a second of its own for each event: so the reason tells whose time it names.
        order = sorted(range(len(ordered)), key=lambda place: ordered[place].produced_ms)
        base = saga.started_ms // 86_400_000 * 86_400_000
        times = {place: base + rank * 1_000 for rank, place in enumerate(order)}
        twin = [seen._replace(produced_ms=times[place]) for place, seen in enumerate(ordered)]
        if len(ordered) * 1_000 >= self._within_ms:
            return None
        other = fold(twin, self._graph, around)
        if other.state != saga.state:
            return None
        pieces, told = _pieces(other.reason, {moment(ms, base): place for place, ms in times.items()})
        first = next((place for place, seen in enumerate(ordered) if seen.event_id == _first_id(saga)), None)
        if first is None:
            return None
        known = _Known(summary_of(saga), first, pieces, told)
        return known if _told(known, ordered) == known.summary else None

    def _told_by_ids(self, ordered: Sequence[Sighting]) -> bool:
        types = {seen.event_id: seen.type_name for seen in ordered}
        return any(
            len(self._declared.emitters.get((seen.source, seen.type_name, types.get(seen.causation_id or "", "")), ()))
            > 1
            for seen in ordered
        )


def _first_id(saga: Saga) -> str:
    """The event that gives a saga its type and key."""
    found = [event for event in saga.events if event.type == saga.type and event.key == saga.key]
    return found[0].id if found else ""


def _pieces(reason: str, moments: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A reason cut at the times of events that it names."""
    pieces, told, rest = list[str](), list[int](), reason
    while True:
        found = min(((rest.find(text), text) for text in moments if text in rest), default=None)
        if found is None:
            return (*pieces, rest), tuple(told)
        at, text = found
        pieces.append(rest[:at])
        told.append(moments[text])
        rest = rest[at + len(text) :]


def _told(known: _Known, ordered: Sequence[Sighting]) -> Summary:
    """What a saga of a known shape is."""
    times = [seen[9] for seen in ordered]
    first, started, updated = ordered[known.first], min(times), max(times)
    reason = known.pieces[0]
    for place, piece in zip(known.told, known.pieces[1:], strict=True):
        reason += moment(times[place], started) + piece
    return known.summary._replace(
        saga=first.saga, key=first.key, reason=reason, started_ms=started, updated_ms=updated, ended_ms=updated,
        parent=first.parent_id,
    )  # fmt: skip
