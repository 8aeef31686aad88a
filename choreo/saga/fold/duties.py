"""What each handler has to do about each event, and how far it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from choreo.graph import HandlerNode
from choreo.saga.fold.declared import Nodes
from choreo.saga.fold.scene import Draft, Scene
from choreo.saga.fold.troubles import Told, Trouble
from choreo.saga.model import DutyStatus, SagaEvent

_STANDS: Mapping[str, DutyStatus] = {
    "dead": "dead",
    "retrying": "retrying",
    "discarded": "discarded",
    "handled": "done",
}


def draft(scene: Scene, troubles: Mapping[Told, Trouble]) -> None:
    """All that handlers have to do, each by itself; what hangs together is settled by others, kind by kind."""
    drafts, ruled, takers = scene.drafts, scene.ruled, scene.declared.takers
    emitted, left = scene.emitted, dict(troubles)
    for event in scene.events:
        for node in (
            takers.get((event.type, event.places[0][0]), ()) if len(event.places) == 1 else _takers(scene, event)
        ):
            told = node.id, event.id
            trouble = left.pop(told, None) if left else None
            of_it = emitted.get(told)
            ids = tuple([each.id for each in of_it]) if of_it else ()
            read = scene.has_read(node.service, event)
            found = Draft(node, event, read, trouble, _alone(node, read, trouble, ids), ids)
            if trouble is not None and found.status == "retrying":
                found.due_ms = trouble.due_ms
            drafts.append(found)
            if node.rule is not None:
                ruled.setdefault(node.kind, []).append(found)
    if left:
        _add_undeclared(scene, left)
    if troubles:
        _hold_back(drafts)


def _takers(scene: Scene, event: SagaEvent) -> Iterable[HandlerNode]:
    """Who takes an event that lies in several places."""
    found = {
        node.id: node for place in event.places for node in scene.declared.takers.get((event.type, place.topic), ())
    }
    return [found[name] for name in sorted(found)]


def _alone(node: HandlerNode, read: bool, trouble: Trouble | None, emitted: tuple[str, ...]) -> DutyStatus:  # noqa: FBT001
    """The status of a handler that is called with each event by itself; for others, what they begin with."""
    if trouble is None:
        return "done" if read or emitted else "pending"
    if trouble.stand == "retrying" and emitted and node.kind in {"on", "join"}:
        return "done"  # it has been called again, and its group has not committed that yet
    return _STANDS[trouble.stand]


def _add_undeclared(scene: Scene, left: Mapping[Told, Trouble]) -> None:
    """Dead letters and retries of handlers that are not declared to take the event: of other versions or systems."""
    of: dict[str, list[tuple[str, Trouble]]] = {}
    for (handler, event_id), trouble in sorted(left.items(), key=lambda each: each[0]):
        of.setdefault(event_id, []).append((handler, trouble))
    every: list[Draft] = []
    mine: dict[str, list[Draft]] = {}
    for each in scene.drafts:
        mine.setdefault(each.event.id, []).append(each)
    for event in scene.events:
        found = mine.get(event.id, [])
        for handler, trouble in of.get(event.id, ()):
            node = scene.declared.handler.get(handler) or _stranger(handler, event.type)
            found.append(Draft(node, event, True, trouble, _STANDS[trouble.stand], ()))
        found.sort(key=lambda each: each.node.id)
        every += found
    scene.drafts[:] = every


def _stranger(handler: str, takes: str) -> HandlerNode:
    service, _, name = handler.rpartition(".")
    return HandlerNode(
        id=handler, service=service, name=name, kind="on", consumes=(takes,), stopped_by=(), emits=(),
        may_emit_nothing=True, several=(), attempts=1, ordered=False, rule=None,
    )  # fmt: skip


def _hold_back(drafts: Iterable[Draft]) -> None:
    """What a handler has read and not handled, since an earlier event of its key is retried or is a dead letter."""
    first: dict[tuple[str, str, int, str], int] = {}
    for each in drafts:
        trouble = each.trouble
        if trouble and trouble.parks and each.node.ordered and each.status in {"dead", "retrying"}:
            for topic, partition, offset in each.event.places:
                at = each.node.id, topic, partition, each.event.key
                first[at] = min(offset, first.get(at, offset))
    for each in drafts if first else ():
        if each.status == "done" and each.trouble is None and not each.emitted:
            for topic, partition, offset in each.event.places:
                if first.get((each.node.id, topic, partition, each.event.key), offset) < offset:
                    each.status = "pending"


def settle_steps(scene: Scene) -> None:
    """Steps that were not started since their saga had failed: they have emitted nothing though they had to."""
    undoing: Mapping[str, Nodes] = scene.declared.undoing
    for each in scene.drafts if not scene.declared.failing.isdisjoint(scene.types) else ():
        node = each.node
        if (
            each.status == "done"
            and node.kind in {"on", "join"}
            and not each.emitted
            and not node.may_emit_nothing
            and node.id in undoing
            and scene.has_failed(node.id) is not None
        ):
            each.status = "unneeded"
