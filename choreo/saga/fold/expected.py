"""What is still to come in a saga, from whom and until when. Pure."""

from __future__ import annotations

from collections.abc import Iterator

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
        found += [
            Expected(what=(name,), handler=None, until_ms=None, because=f"{name} would bring it to its end")
            for name in facts.awaited
        ]
    # One answer from outside may be what several wait for.
    return tuple({(each.what, each.handler, each.handler and each.because): each for each in found[::-1]}.values())[
        ::-1
    ]


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
    """What a join waits for: each missing type with who emits it, or the event from outside that it may come of."""
    because, until_ms = words.wait(wait), facts.until_ms
    for name in wait.missing:
        if name in facts.coming:
            yield Expected(what=(name,), handler=emitter(facts, name), until_ms=until_ms, because=because)
        elif name in facts.answers:
            for answer in facts.answers[name]:
                yield Expected(what=(answer,), handler=None, until_ms=until_ms, because=because)
        elif wait.key:
            yield Expected(what=(name,), handler=emitter(facts, name), until_ms=until_ms, because=because)


def emitter(facts: Facts, name: str) -> str | None:
    """Who owes an event of this type: of several handlers one that has something to do, else the first declared."""
    node = facts.scene.declared.event.get(name)
    if node is None or not node.emitted_by:
        return None
    opened = [draft.node.id for draft in (*facts.pending, *facts.retrying, *facts.armed, *facts.dead)]
    return next((each for each in node.emitted_by if each in opened), node.emitted_by[0])


def _answers(facts: Facts, words: Words) -> Iterator[Expected]:
    """Events from outside that an armed deadline waits for."""
    for draft in facts.armed:
        for name in outside(facts, draft):
            because = f"{draft.node.id} waits for {either(draft.node.stopped_by)} until {words.time(draft.due_ms or 0)}"
            yield Expected(what=(name,), handler=None, until_ms=draft.due_ms, because=because)


def outside(facts: Facts, draft: Draft) -> list[str]:
    """The events from outside, none of which has come, that lead to what stops a deadline."""
    return sorted({entry for name in draft.node.stopped_by for entry in facts.answers.get(name, ())})
