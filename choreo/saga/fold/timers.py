"""Deadlines of a saga: which timers are set, and what stopped them. Pure.

A timer that goes off leaves no mark in the log unless its handler emits something. So of a handler that may emit nothing
it is taken that it was called when its time was over.
"""

from __future__ import annotations

from choreo.graph import Timing
from choreo.saga.fold.scene import SLACK_MS, Draft, Scene


def settle(scene: Scene) -> None:
    """Give all deadlines their status."""
    for draft in scene.drafts:
        if isinstance(draft.node.rule, Timing) and draft.status not in {"dead", "retrying"}:
            _settle(scene, draft, draft.node.rule)


def _settle(scene: Scene, draft: Draft, rule: Timing) -> None:
    timer = _Timer(scene, draft, rule)
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

    def __init__(self, scene: Scene, draft: Draft, rule: Timing) -> None:
        event = draft.event
        self._scene, self._draft, self._rule = scene, draft, rule
        self._first_ms = event.produced_ms + round(rule.within * 1000)
        self._pace_ms = round(rule.every * 1000)
        self._grace_ms = round(rule.grace * 1000)
        node, types = draft.node, scene.types
        others = [each for name in node.stopped_by if name != event.type for each in types.get(name, ())]
        self._stopped_ms = min((each.produced_ms for each in others), default=None)
        again = types[event.type] if event.type in node.stopped_by else ()
        mine = event.produced_ms, event.id
        later = min(((each.produced_ms, each.id) for each in again if (each.produced_ms, each.id) > mine), default=None)
        if later is not None and (self._stopped_ms is None or later[0] < self._stopped_ms):
            self._stopped_ms = later[0]

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
