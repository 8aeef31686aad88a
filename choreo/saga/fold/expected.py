"""What is still to come in a saga, from whom and until when. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from choreo.graph import Joining
from choreo.saga.fold.facts import Facts
from choreo.saga.fold.scene import Draft, Wait
from choreo.saga.fold.words import Words, either
from choreo.saga.model import Expected


def expected(facts: Facts, words: Words) -> tuple[Expected, ...]:
    """What is to come, the most certain first; empty at rest."""
    found = [_handling(facts, draft, words) for draft in (*facts.pending, *facts.retrying, *facts.dead)]
    found += [_call(draft, words) for draft in facts.armed]
    if facts.outcome is None:
        found += [each for wait in facts.hoping for each in _joined(facts, wait, words)]
        found += _answers(facts, words)
    return tuple(found)


def _emits(draft: Draft) -> tuple[str, ...]:
    return () if draft.node.kind == "batch" else draft.node.emits


def _handling(facts: Facts, draft: Draft, words: Words) -> Expected:
    until_ms = draft.due_ms if draft.node.kind == "deadline" else facts.until_ms
    return Expected(what=_emits(draft), handler=draft.node.id, until_ms=until_ms, because=words.open_duty(draft))


def _call(draft: Draft, words: Words) -> Expected:
    unless = f" unless {either(draft.node.stopped_by)} comes first" if draft.node.stopped_by else ""
    because = f"{draft.node.id} is called at {words.time(draft.due_ms or 0)}{unless}"
    return Expected(what=_emits(draft), handler=draft.node.id, until_ms=draft.due_ms, because=because)


def _joined(facts: Facts, wait: Wait, words: Words) -> Iterator[Expected]:
    """What a join waits for: each missing type with who emits it."""
    because = words.wait(wait)
    for name in wait.missing:
        if wait.key or facts.is_outside(name) or name in facts.coming:
            yield Expected(what=(name,), handler=emitter(facts, name), until_ms=facts.until_ms, because=because)


def emitter(facts: Facts, name: str) -> str | None:
    """Who owes an event of this type: of several handlers one that has something to do, else the first declared."""
    node = facts.scene.declared.event.get(name)
    if node is None or not node.emitted_by:
        return None
    opened = [draft.node.id for draft in (*facts.pending, *facts.retrying, *facts.armed, *facts.dead)]
    return next((each for each in node.emitted_by if each in opened), node.emitted_by[0])


def _answers(facts: Facts, words: Words) -> Iterator[Expected]:
    """Events from outside that an armed deadline waits for: those that lead to what stops it."""
    if facts.pending or facts.retrying:
        return
    told: set[str] = set()
    for draft in facts.armed:
        for name in outside(facts, draft):
            if name not in told:
                told.add(name)
                because = (
                    f"{draft.node.id} waits for {either(draft.node.stopped_by)} until {words.time(draft.due_ms or 0)}"
                )
                yield Expected(what=(name,), handler=None, until_ms=draft.due_ms, because=because)


def outside(facts: Facts, draft: Draft) -> list[str]:
    """The events from outside, none of which has come, that lead to what stops a deadline."""
    scene, stopping = facts.scene, set(draft.node.stopped_by)
    coming = {name for wait in facts.hoping for name in wait.missing if not facts.is_outside(name)}
    if stopping & coming:
        return []
    return [
        name
        for name in sorted(scene.declared.entries)
        if name not in scene.types and scene.declared.reach(name) & stopping
    ]


def gathers(wait: Wait) -> str | None:
    """The type that a join gathers, if it does."""
    rule = wait.node.rule
    return rule.gathers if isinstance(rule, Joining) else None
