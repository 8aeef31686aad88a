"""Which events can come in one saga, each alone and two together.

Two events can come together if one causes the other, or if somewhere on the way to them an event had two handlers, or a
handler emitted several events. They cannot if both ways lead through one call of a handler that emits one or the other.
Pairs alone are looked at, so of three events that exclude each other only all at once this says that they can: what it
says cannot be, cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from choreo.check.ways import Way, go_together, nearest_first


class Together:
    """The relation, computed at once; sets of events are the bits of one number.

    Args:
        starts: the events that come from outside.
        may_meet: whether two of these can belong to one saga.
    """

    def __init__(
        self, ways: Sequence[Way], events: Iterable[str], starts: Sequence[str], may_meet: Callable[[str, str], bool]
    ) -> None:
        self._bit = {event: 1 << number for number, event in enumerate(events)}
        self._before = dict.fromkeys(self._bit, 0)
        self._after = dict.fromkeys(self._bit, 0)
        self._apart = dict.fromkeys(self._bit, 0)
        """With which events it can come without one being the cause of the other; with itself: it can come twice."""
        self._reached = 0
        self._reacting: dict[str, list[Way]] = {}
        for way in ways:
            for cause in way.causes:
                self._reacting.setdefault(cause, []).append(way)
        for start in starts:
            self._reached |= self._bit[start]
        for start in starts:
            self._part(start, self._bits(other for other in starts if other != start and may_meet(start, other)))
        self._open: set[int] = set()  # ways that are known to be gone, by identity: to hash them takes long
        emitting = [way for way in nearest_first(ways, starts) if way.emits]
        while sum(map(self._follow, emitting)):
            pass  # each round adds to the sets, which are bounded

    def reaches(self, event: str) -> bool:
        """Whether the event can come at all."""
        return bool(self._reached & self._bit[event])

    def fires(self, way: Way) -> bool:
        """Whether all events that a handler needs can come, each two of them together."""
        needed = self._bits(way.causes)
        return not needed & ~self._reached and all(not needed & ~self._with(cause) for cause in way.causes)

    def meet(self, one: str, other: str) -> bool:
        """Whether two events can come in one saga."""
        return bool(self.reaches(one) and self.reaches(other) and self._with(one) & self._bit[other])

    def causes(self, one: str, other: str) -> bool:
        """Whether the first event can be among the causes of the second."""
        return bool(self._before[other] & self._bit[one])

    def _bits(self, events: Iterable[str]) -> int:
        bits = 0
        for event in events:
            bits |= self._bit[event]
        return bits

    def _with(self, event: str) -> int:
        return self._bit[event] | self._before[event] | self._after[event] | self._apart[event]

    def _follow(self, way: Way) -> bool:
        """Add what follows from one way of a handler; whether that is anything new."""
        is_new = id(way) not in self._open
        if is_new and not self.fires(way):
            return False
        self._open.add(id(way))
        before, apart = 0, -1
        for cause, topics in zip(way.causes, way.topics, strict=True):
            before |= self._bit[cause] | self._before[cause]
            apart &= self._apart[cause] | self._beside(cause, topics, way)
        for cause in way.causes:
            before &= self._with(cause)
        for emitted in way.emits:
            beside = [other for other in way.emits if go_together(way.handler, emitted, other)]
            is_new |= self._emit(emitted, before, apart | self._with_what_follows(beside))
        return is_new

    def _beside(self, cause: str, topics: frozenset[str], way: Way) -> int:
        """What other handlers of an event lead to, if it comes to them by the same topic."""
        bits = 0
        for other in self._reacting[cause]:
            if other.handler is way.handler or not other.emits:
                continue
            if id(other) in self._open and not topics.isdisjoint(other.topics[other.causes.index(cause)]):
                bits |= self._with_what_follows(other.emits)
        return bits

    def _with_what_follows(self, events: Iterable[str]) -> int:
        bits = 0
        for event in events:
            bits |= self._bit[event] | self._after[event]
        return bits

    def _emit(self, event: str, before: int, apart: int) -> bool:
        bit = self._bit[event]
        new = not self._reached & bit
        self._reached |= bit
        added = before & ~self._before[event]
        if added:
            self._before[event] |= added
            for other in self._named(added):
                self._after[other] |= bit
        return self._part(event, apart & self._reached) or bool(added) or new

    def _part(self, event: str, apart: int) -> bool:
        added = apart & ~self._apart[event]
        self._apart[event] |= added
        for other in self._named(added):
            self._apart[other] |= self._bit[event]
        return bool(added)

    def _named(self, bits: int) -> list[str]:
        return [event for event, bit in self._bit.items() if bits & bit] if bits else []
