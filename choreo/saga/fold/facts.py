"""What is open in a saga, and what can still come: the ground on which its state is judged. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from choreo.graph import Joining
from choreo.saga.fold.scene import Draft, Scene, Wait
from choreo.saga.model import Effect, SagaEvent
from choreo.saga.outcome import Ending


@dataclass
class Facts:
    """A saga once all its duties are settled.

    Attributes:
        first: the event that began it, if that is there.
        outcome: what its events declare.
        failures: the events that make it fail.
        pending, retrying, armed, dead: its open duties.
    """

    scene: Scene
    first: SagaEvent | None
    outcome: Ending | None
    failures: list[SagaEvent]
    ledger: tuple[Effect, ...]

    def __post_init__(self) -> None:
        self.now_ms = self.scene.around.now_ms
        self.pending: list[Draft] = []
        self.retrying: list[Draft] = []
        self.armed: list[Draft] = []
        self.dead: list[Draft] = []
        lists = {"pending": self.pending, "retrying": self.retrying, "armed": self.armed, "dead": self.dead}
        for draft in self.scene.drafts:
            found = lists.get(draft.status)
            if found is not None:
                found.append(draft)

    @cached_property
    def until_ms(self) -> int | None:
        """When the next deadline ends the wait."""
        return min(
            (draft.due_ms for draft in self.scene.drafts if draft.node.kind == "deadline" and draft.due_ms),
            default=None,
        )

    @cached_property
    def failing(self) -> list[Draft]:
        """Open dead letters that make the saga fail: once it has its outcome, those of leaves do not."""
        return [draft for draft in self.dead if self.outcome is None or not self._is_leaf(draft)]

    def _is_leaf(self, draft: Draft) -> bool:
        node = draft.node
        known = node.id in self.scene.declared.handler
        return known and node.kind != "compensation" and (not node.emits or node.kind == "batch")

    @cached_property
    def coming(self) -> frozenset[str]:
        """The types that may still come from handlers of the saga."""
        reach, opened = self.scene.declared.reach_of, (*self.pending, *self.retrying, *self.armed, *self.dead)
        coming = reach(name for draft in opened if draft.node.kind != "batch" for name in draft.node.emits)
        left = list(self.scene.waits)
        while ready := [wait for wait in left if self._may_fire(wait, coming)]:
            left = [wait for wait in left if wait not in ready]
            coming |= reach(name for wait in ready for name in wait.node.emits)
        return coming

    def _may_fire(self, wait: Wait, coming: frozenset[str]) -> bool:
        found = [name for name in wait.missing if name in coming or name in self.answers]
        rule = wait.node.rule
        gathers = isinstance(rule, Joining) and rule.gathers is not None
        return len(found) == len(wait.missing) if gathers else len(found) >= wait.need

    @cached_property
    def answers(self) -> dict[str, tuple[str, ...]]:
        """The types that may come of events from outside that have not come, with those: nobody here knows whether they do."""
        declared, found = self.scene.declared, dict[str, tuple[str, ...]]()
        for entry in sorted(declared.entries - self.scene.types.keys()):
            for name in declared.reach(entry):
                found[name] = (*found.get(name, ()), entry)
        return found

    @cached_property
    def awaited(self) -> list[str]:
        """Events from outside that would bring the saga to an end, now that nothing else will.

        Declarations do not say which events from outside go on with a saga. These have the key of its events, are heard of
        by services that hear of it, and are not taken in place of what has come.
        """
        if self.outcome is not None or not self.is_at_rest:
            return []
        declared, types = self.scene.declared, self.scene.types
        known = [declared.event[name] for name in types if name in declared.event]
        keys, takers = {event.key for event in known}, {name for event in known for name in event.consumed_by}
        services = {declared.handler[name].service for name in takers}
        found = []
        for entry in sorted(declared.entries - types.keys()):
            event = declared.event[entry]
            if event.key in keys and takers.isdisjoint(event.consumed_by):
                comes = self._comes_of(entry)
                hearing = {
                    declared.handler[each].service for name in comes for each in declared.event[name].consumed_by
                }
                if comes & declared.ends and services & hearing:
                    found.append(entry)
        return found

    def _comes_of(self, entry: str) -> set[str]:
        """What comes of an event for sure, or may; joins fire only if they have all else."""
        declared, waits = self.scene.declared, {wait.node.id: wait for wait in self.scene.waits if not wait.key}
        begun = {draft.node.id for draft in self.scene.drafts if isinstance(draft.node.rule, Joining)}
        comes, before = {entry}, 0
        while before != len(comes):
            before = len(comes)
            for name in tuple(comes):
                for taker in declared.event[name].consumed_by:
                    node = declared.handler[taker]
                    rule = node.rule
                    if isinstance(rule, Joining) and rule.by is None:
                        wait = waits.get(node.id)
                        missing, need = (wait.missing, wait.need) if wait else (node.consumes, rule.need)
                        if (node.id in begun and wait is None) or len(comes.intersection(missing)) < min(
                            need or 1, len(missing)
                        ):
                            continue
                    if node.kind != "batch":
                        comes.update(node.emits)
        return comes

    @cached_property
    def hoping(self) -> list[Wait]:
        """Joins that wait for what can still come. One by a key can always fire: what it waits for may be of another saga."""
        return [wait for wait in self.scene.waits if wait.key or self._may_fire(wait, self.coming)]

    @cached_property
    def hopeless(self) -> list[Wait]:
        """Joins that wait for what nobody will emit any more."""
        return [wait for wait in self.scene.waits if wait not in self.hoping]

    @cached_property
    def owed(self) -> list[Effect]:
        """What is to be undone and is not."""
        return [line for line in self.ledger if line.status == "owed"]

    @cached_property
    def is_at_rest(self) -> bool:
        """Whether nobody owes anything, and nothing is armed."""
        return not (self.pending or self.retrying or self.armed or self.scene.early)

    @cached_property
    def is_still(self) -> bool:
        """Whether nothing will happen by itself any more; joins that can fire count only while the outcome is open."""
        return self.is_at_rest and (self.outcome is not None or not self.hoping)

    def can_end(self) -> bool:
        """Whether an event with an outcome was to come, by what is declared of the first event."""
        declared = self.scene.declared
        if self.first is None:
            return bool(declared.ends)
        return bool(declared.reach(self.first.type) & declared.ends)

    def can_end_failed(self) -> bool:
        """Whether an event with an outcome was to come of the failures that have come."""
        declared = self.scene.declared
        return bool(declared.reach_of(event.type for event in self.failures) & declared.ends)


def first_of(scene: Scene) -> SagaEvent | None:
    """The event that began the saga: the one it is named after, else the first that has no cause."""
    named = scene.by_id.get(scene.name)
    if named is not None:
        return named
    roots = (event for event in scene.events if event.cause is None or event.parent is not None)
    return min(roots, key=lambda event: (event.produced_ms, event.places), default=None)
