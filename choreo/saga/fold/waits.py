"""Joins of a saga: what they have, what they wait for, whether they have fired. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from choreo.graph import HandlerNode, Joining
from choreo.saga.fold.scene import Draft, Scene, Wait
from choreo.saga.model import SagaEvent

_THERE = {"done", "retrying", "dead"}
"""Of an event that has come: one at which the join failed is given to it again."""


def _counted(drafts: Iterable[Draft]) -> dict[str, int]:
    """How many of each type."""
    counts: dict[str, int] = {}
    for draft in drafts:
        counts[draft.event.type] = counts.get(draft.event.type, 0) + 1
    return counts


def settle(scene: Scene) -> None:
    """Give all events of joins their status, and note what waits."""
    groups: dict[tuple[str, str], list[Draft]] = {}
    for draft in scene.ruled.get("join", ()):
        if isinstance(draft.node.rule, Joining):
            is_apart = draft.node.rule.by is not None
            if not is_apart or draft.node.id in scene.declared.by_key:
                groups.setdefault((draft.node.id, draft.event.key if is_apart else ""), []).append(draft)
            # else: its events find each other by what they carry, maybe in other sagas, and the log does not tell
    for (_, key), drafts in groups.items():
        _settle(scene, drafts, drafts[0].node, drafts[0].node.rule, key)  # type: ignore[arg-type] # looked at above


def _settle(scene: Scene, drafts: list[Draft], node: HandlerNode, rule: Joining, key: str) -> None:
    live = [draft for draft in drafts if draft.status == "done"]
    if any(draft.emitted for draft in drafts):
        _fire(drafts, node, rule)
        return
    counts = _counted(draft for draft in drafts if draft.status in _THERE)
    missing, need = _missing(node, rule, counts)
    if closing := _closing(scene, node, rule, key):
        is_done = live and not missing and node.may_emit_nothing and _last(live).written_ms < closing.written_ms
        for draft in live if not is_done else ():
            draft.status = "stopped"
    elif missing or len(live) < len([draft for draft in drafts if draft.status in _THERE]):
        _gather(live, rule)
        gathering = [draft for draft in live if draft.status == "gathering"]
        if gathering and missing:
            scene.waits.append(Wait(node, gathering, missing, need, key))


def _fire(drafts: list[Draft], node: HandlerNode, rule: Joining) -> None:
    """It has fired: what it has read is done, and the rest it will look at in vain. What it needed for sure, it has read."""
    if rule.gathers is None and rule.need == len(node.consumes):
        counts = _counted(drafts)
        for draft in drafts:
            if draft.status == "pending" and counts[draft.event.type] == 1:
                draft.status = "done"


def _last(live: Iterable[Draft]) -> SagaEvent:
    return max((draft.event for draft in live), key=lambda event: event.written_ms)


def _missing(node: HandlerNode, rule: Joining, counts: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """The types that a join waits for, and how many of them suffice; see `Wait.need`."""
    if rule.gathers is None:
        more = rule.need - len(counts)
        return (tuple(name for name in node.consumes if name not in counts), more) if more > 0 else ((), 0)
    missing = tuple(name for name in node.consumes if name != rule.gathers and name not in counts)
    left = None if rule.count is None else rule.count - counts.get(rule.gathers, 0)
    if left is None or left > 0:
        return (*missing, rule.gathers), 0 if left is None else left
    return missing, len(missing)


def _closing(scene: Scene, node: HandlerNode, rule: Joining, key: str) -> SagaEvent | None:
    """The first event after which a join does not fire any more."""
    come = [event for name in node.stopped_by for event in scene.types.get(name, ())]
    mine = [event for event in come if rule.by is None or event.key == key]
    return min(mine, key=lambda event: (event.written_ms, event.places), default=None)


def _gather(live: Iterable[Draft], rule: Joining) -> None:
    """Of each kind the first to come is kept; of the kind that is gathered, all are."""
    seen: set[str] = set()
    for draft in live:
        name = draft.event.type
        draft.status = "unneeded" if name in seen and name != rule.gathers else "gathering"
        seen.add(name)
