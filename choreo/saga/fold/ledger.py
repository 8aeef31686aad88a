"""The ledger of a saga: what its steps have emitted, and whether it is undone. Pure.

A step whose saga had failed before is not started, emits nothing, and has no line. The first failure decides for a step;
further ones change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from choreo.graph import HandlerNode, Timing
from choreo.saga.fold.declared import Nodes, undone_by
from choreo.saga.fold.scene import Draft, Scene
from choreo.saga.model import Effect, EffectStatus, SagaEvent

_TROUBLED = {"dead", "retrying", "discarded"}


def settle(scene: Scene, *, failed: bool) -> tuple[Effect, ...]:
    """The ledger, in the order of events; compensations get their status.

    Args:
        failed: whether the saga has failed for good.
    """
    declared = scene.declared
    if not failed and declared.failing.isdisjoint(scene.types):
        return _all_kept(scene)
    duties = {(each.node.id, each.event.id): each for each in scene.ruled.get("compensation", ())}
    lines: dict[str, Effect] = {}
    for step, compensations in declared.undoing.items():
        if step in scene.by_step or any(name in scene.types for node in compensations for name in node.consumes):
            _Step(scene, step, compensations, duties, failed=failed).settle(lines)
    if failed:
        _add_uncovered(scene, lines)
    return tuple(lines[event.id] for event in scene.events if event.id in lines)


def _all_kept(scene: Scene) -> tuple[Effect, ...]:
    """The ledger of a saga in which nothing asks to undo anything: of most."""
    undoes = scene.declared.undoes
    return tuple(
        Effect(event=event.id, type=event.type, step=event.handler, compensation=name, status="kept")
        for event in scene.events
        if event.handler is not None and (name := undoes.get((event.handler, event.type))) is not None
    )


class _Step:
    """A step that can be undone, in one saga."""

    def __init__(
        self, scene: Scene, step: str, compensations: Nodes, duties: dict[tuple[str, str], Draft], *, failed: bool
    ) -> None:
        self._scene, self._step, self._failed = scene, step, failed
        self._compensations = compensations
        self._duties = duties
        self._told: dict[str, dict[str, list[SagaEvent]]] = {}
        types = {name for node in compensations for name in undone_by(node)}
        self._effects = [event for event in scene.by_step.get(step, ()) if event.type in types]
        failing = {name for node in compensations for name in node.consumes}
        self._failures = (
            [event for event in scene.events if event.type in failing] if failing & scene.types.keys() else []
        )

    def settle(self, lines: dict[str, Effect]) -> None:
        """Add a line for each effect, and give the compensations their status."""
        failure = self._acting()
        for effect in self._effects:
            lines[effect.id] = self._kept(effect) if failure is None else self._line(effect, failure)
        for event in self._failures:
            for node in self._compensations:
                duty = self._duties.get((node.id, event.id))
                if duty is not None:
                    self._judge(duty, lines, is_acting=event is failure)

    def _acting(self) -> SagaEvent | None:
        """The failure that decides: what a compensation did or could not do tells; else the first that was read."""
        for event in self._failures:
            for node in self._compensations:
                duty = self._duties.get((node.id, event.id))
                if duty is not None and (duty.emitted or duty.trouble is not None):
                    return event
        read = (event for event in self._failures if self._is_read(event))
        return next(read, self._failures[0] if self._failures else None)

    def _is_read(self, failure: SagaEvent) -> bool:
        return any(
            duty.read for node in self._compensations if (duty := self._duties.get((node.id, failure.id))) is not None
        )

    @cached_property
    def _is_left(self) -> bool:
        """Whether no failure that the step is undone on can come any more."""
        known = {name for each in self._compensations for name in each.consumes}
        told = self._scene.declared.reach_of({event.type for event in self._scene.events if event.failure})
        return self._failed and not known & told

    def _kept(self, effect: SagaEvent) -> Effect:
        return Effect(
            event=effect.id, type=effect.type, step=self._step,
            compensation=self._scene.declared.undoes[self._step, effect.type],
            status="uncovered" if self._is_left else "kept",
        )  # fmt: skip

    def _line(self, effect: SagaEvent, failure: SagaEvent) -> Effect:
        node = next(
            (each for each in self._compensations if failure.type in each.consumes and effect.type in undone_by(each)),
            None,
        )
        if node is None:  # another failure would undo it, and the first one decides
            return self._kept(effect)
        undoing = self._undoing(effect, node)
        return Effect(
            event=effect.id, type=effect.type, step=self._step, compensation=node.id,
            status=self._status(node, failure, undoing), failure=failure.id,
            undone_by=tuple(event.id for event in undoing),
        )  # fmt: skip

    def _status(self, node: HandlerNode, failure: SagaEvent, undoing: Sequence[SagaEvent]) -> EffectStatus:
        if undoing:
            return "impossible" if all(event.failure for event in undoing) else "done"
        duty = self._duties.get((node.id, failure.id))
        if duty is not None and duty.status == "discarded":
            return "impossible"
        is_silent = node.may_emit_nothing or not node.emits
        return "done" if duty is not None and duty.status == "done" and is_silent else "owed"

    def _undoing(self, effect: SagaEvent, node: HandlerNode) -> list[SagaEvent]:
        """What the compensation emitted when it undid this effect, or the whole run of the step that it was part of."""
        found = self._told.get(node.id)
        if found is None:
            found = self._told[node.id] = self._told_by(node)
        return found.get(effect.id, [])

    def _told_by(self, node: HandlerNode) -> dict[str, list[SagaEvent]]:
        """What a compensation emitted, by the effects that it undid."""
        found: dict[str, list[SagaEvent]] = {}
        runs: dict[tuple[str | None, int], list[SagaEvent]] = {}
        effects = {effect.id: effect for effect in self._effects}
        several = bool(self._scene.declared.handler[self._step].several)
        for effect in self._effects:
            runs.setdefault(_run(effect, self._scene), []).append(effect)
        for event in self._scene.by_step.get(node.id, ()):
            undone = effects.get(event.compensates or "")
            if undone is not None:
                for each in runs[_run(undone, self._scene)] if several else (undone,):
                    found.setdefault(each.id, []).append(event)
            elif event.failure and len(effects) == 1:  # a business error of a compensation says less
                found.setdefault(self._effects[0].id, []).append(event)
        return found

    def _judge(self, duty: Draft, lines: dict[str, Effect], *, is_acting: bool) -> None:
        if duty.status in _TROUBLED:
            return
        mine = [lines[effect.id] for effect in self._effects] if is_acting else []
        to_do = [line.status for line in mine if line.compensation == duty.node.id]
        if to_do:
            is_done = duty.read or not {"owed", "kept"}.intersection(to_do)
            duty.status = "done" if is_done else "pending"
        elif duty.read:
            duty.status = "unneeded"


def _run(event: SagaEvent, scene: Scene) -> tuple[str | None, int]:
    """What tells the calls of a step apart: their cause, and of a deadline's the time."""
    rule = scene.declared.handler[event.handler or ""].rule
    return event.cause, event.produced_ms if isinstance(rule, Timing) else 0


def _add_uncovered(scene: Scene, lines: dict[str, Effect]) -> None:
    """What services did that have no compensation for it, and that never hear of a failure on which others undo theirs."""
    declared = scene.declared
    failures = [event for event in scene.events if event.failure or event.ends == "failed"]
    told = declared.reach_of(event.type for event in failures)
    if not any(told.intersection(node.consumes) for undoing in declared.undoing.values() for node in undoing):
        return
    for event in scene.events:
        node = declared.handler.get(event.handler or "")
        is_effect = (
            node is not None and node.kind in {"on", "join", "deadline"} and not event.failure and not event.ends
        )
        if node is None or not is_effect or event.id in lines or event.type in told or node.id in declared.undoing:
            continue
        if not told & declared.hears(node.service):
            lines[event.id] = Effect(
                event=event.id, type=event.type, step=node.id, compensation=None, status="uncovered"
            )
