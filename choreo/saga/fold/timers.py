"""Deadlines of a saga: which timers are set, and what stopped them. Pure.

A timer that goes off leaves no mark in the log unless its handler emits something. So of a handler that may emit nothing
it is taken that it was called when its time was over.
"""

from __future__ import annotations

from bisect import bisect_right

from choreo.graph import HandlerNode, Timing
from choreo.saga.fold.scene import SLACK_MS, Draft, Scene
from choreo.saga.model import SagaEvent


def settle(scene: Scene) -> None:
    """Give all deadlines their status."""
    stops: dict[str, _Stops] = {}
    for draft in scene.ruled.get("deadline", ()):
        node = draft.node
        if isinstance(node.rule, Timing) and draft.status not in {"dead", "retrying"}:
            known = stops.get(node.id)
            if known is None:
                known = stops[node.id] = _Stops(scene, node)
            _settle(scene, draft, node.rule, known)


class _Stops:
    """What stops the timers of a deadline: the times are those at which it was produced."""

    def __init__(self, scene: Scene, node: HandlerNode) -> None:
        sets = node.consumes[0]
        times = [each.produced_ms for name in node.stopped_by if name != sets for each in scene.types.get(name, ())]
        self._first_ms = min(times, default=None)
        again = scene.types.get(sets, ()) if sets in node.stopped_by else ()
        self._again = sorted((each.produced_ms, each.id) for each in again)

    def first_ms(self, event: SagaEvent) -> int | None:
        """The first that stops a timer which this event has set."""
        later = bisect_right(self._again, (event.produced_ms, event.id))
        if later == len(self._again):
            return self._first_ms
        again_ms = self._again[later][0]
        return again_ms if self._first_ms is None else min(again_ms, self._first_ms)


def _settle(scene: Scene, draft: Draft, rule: Timing, stops: _Stops) -> None:
    timer = _Timer(scene, draft, rule, stops.first_ms(draft.event))
    now_ms, number = scene.around.now_ms, timer.next_call()
    while (
        draft.read
        and draft.node.may_emit_nothing
        and number <= rule.times
        and now_ms >= timer.over_ms(number)
        and not timer.is_stopped(number)
    ):
        number += 1
    if number > rule.times:
        draft.status = "discarded" if draft.status == "discarded" else "done"
    elif timer.is_stopped(number) or (number == 1 and scene.has_failed(draft.node.id) is not None):
        draft.status = "stopped" if draft.read else "pending"
    else:
        draft.status = "armed" if draft.read else "pending"
        draft.due_ms = timer.due_ms(number)
        draft.late = now_ms >= timer.over_ms(number)
        draft.next_ms = None if draft.late else timer.over_ms(number)


class _Timer:
    """The calls of a deadline for one event."""

    def __init__(self, scene: Scene, draft: Draft, rule: Timing, stopped_ms: int | None) -> None:
        self._scene, self._draft, self._rule, self._stopped_ms = scene, draft, rule, stopped_ms
        self._first_ms = draft.event.produced_ms + round(rule.within * 1000)
        self._pace_ms = round(rule.every * 1000)
        self._grace_ms = round(rule.grace * 1000)

    def due_ms(self, number: int) -> int:
        """When a call is due: what stops it must have been produced by then."""
        return self._first_ms + (number - 1) * self._pace_ms

    def over_ms(self, number: int) -> int:
        """From when on a call is late, if it was not made."""
        return self.due_ms(number) + self._grace_ms + SLACK_MS

    def is_stopped(self, number: int) -> bool:
        """Whether what has come stops a call."""
        return self._stopped_ms is not None and self._stopped_ms <= self.due_ms(number)

    def next_call(self) -> int:
        """The number of the first call that nothing tells of."""
        trouble = self._draft.trouble
        by_id = self._scene.by_id
        times = [by_id[each].produced_ms for each in self._draft.emitted]
        times += trouble.failed_ms if trouble is not None else ()
        return 1 + max(map(self._number_at, times), default=0)

    def _number_at(self, called_ms: int) -> int:
        """Which call one at this time was; those that were long past have been left out."""
        since_ms = called_ms - self._grace_ms - self._first_ms
        if self._rule.times == 1 or since_ms < 0:
            return 1
        return min(self._rule.times, 1 + since_ms // self._pace_ms)
