"""In which state a saga is, and why. Pure.

The states are looked at one after another; the first that applies is it.
"""

from __future__ import annotations

from collections.abc import Callable

from choreo.saga.fold.expected import emitter, outside
from choreo.saga.fold.facts import Facts
from choreo.saga.fold.scene import Draft, Wait
from choreo.saga.fold.words import Words, both, either, short
from choreo.saga.model import Effect, SagaEvent, State


def verdict(facts: Facts, words: Words) -> tuple[State, str]:
    """The state and its reason."""
    for state, judge in _STATES:
        reason = judge(facts, words)
        if reason:
            return state, reason
    return "stuck", _stuck(facts, words)


def _conflict(facts: Facts, words: Words) -> str:
    if facts.outcome != "conflict":
        return ""
    firsts: dict[str, SagaEvent] = {}
    for event in facts.scene.events:
        if event.ends is not None:
            firsts.setdefault(event.ends, event)
    return f"two outcomes: {' and '.join(words.event(each) for _, each in sorted(firsts.items()))}"


def _diverged(facts: Facts, words: Words) -> str:
    found = facts.scene.unexplained
    if not found:
        return ""
    event, why = found[0]
    return f"{words.event(event)} is not declared: {why.partition(': ')[2]}{_more(len(found))}"


def _failed(facts: Facts, words: Words) -> str:
    if not facts.failing:
        return ""
    return f"{words.open_duty(facts.failing[0])}{_more(len(facts.failing))}"


def _truncated(facts: Facts, words: Words) -> str:
    if not facts.scene.events:
        return "none of its events is in the log"
    if not facts.scene.lost:
        return ""
    event = facts.scene.lost[0]
    what = "its first event" if facts.first is None else "a part of it"
    return f"{what} is no longer in the log: {words.event(event)} names {event.cause} as its cause"


def _partially_compensated(facts: Facts, _: Words) -> str:
    impossible = [line for line in facts.ledger if line.status == "impossible"]
    left = impossible or (facts.owed if facts.is_at_rest else [])
    if not left:
        return ""
    line = left[0]
    how = _given_up(facts, line) if line in impossible else f"{line.compensation} was called and nothing has come of it"
    return f"{line.type} of {line.step} is not undone: {how}{_more(len(left))}"


def _given_up(facts: Facts, line: Effect) -> str:
    for draft in facts.scene.drafts:
        if draft.node.id == line.compensation and draft.event.id == line.failure and draft.status == "discarded":
            letter = draft.trouble.letter if draft.trouble else ""
            return f"dead letter {short(letter)} of {line.compensation} was discarded"
    return f"{line.compensation} has emitted a failure"


def _compensating(facts: Facts, words: Words) -> str:
    if not facts.owed:
        return ""
    line = facts.owed[0]
    failure = facts.scene.by_id[line.failure or ""]
    total = sum(each.status in {"owed", "done"} for each in facts.ledger)
    so_far = f"{len(facts.owed)} of {total} effects still to be undone"
    return f"{words.event(failure)}: {so_far}, {line.type} by {line.compensation}"


def _compensated(facts: Facts, words: Words) -> str:
    if not facts.is_at_rest:
        return ""
    if facts.outcome == "failed":
        return f"failed with {words.event(_ending(facts))}; {_undone(facts)}{_leaves(facts)}"
    if facts.outcome is None and facts.failures and not facts.hoping and not facts.can_end_failed():
        return f"failed with {words.event(facts.failures[0])}; {_undone(facts)}{_leaves(facts)}"
    return ""


def _undone(facts: Facts) -> str:
    done = [line for line in facts.ledger if line.status == "done"]
    left = [line for line in facts.ledger if line.status == "uncovered"]
    said = f"undone: {both(list(dict.fromkeys(line.type for line in done)))}" if done else "nothing had to be undone"
    if left:
        said += f"; no compensation is declared for {both(list(dict.fromkeys(line.type for line in left)))}"
    return said


def _completed(facts: Facts, words: Words) -> str:
    if facts.outcome == "completed" and facts.is_at_rest:
        return f"completed with {words.event(_ending(facts))}{_leaves(facts)}"
    if facts.outcome is None and facts.is_still and not facts.hopeless and not facts.failures and not facts.can_end():
        last = facts.scene.events[-1]
        known = last.type in facts.scene.declared.event
        said = (
            "all branches have ended"
            if known
            else f"no declared handler takes {last.type or 'an event without a type'}"
        )
        return f"{said}{_leaves(facts)}"
    return ""


def _late(facts: Facts, words: Words) -> str:
    late = [draft for draft in (*facts.armed, *facts.pending) if draft.late]
    if not late:
        return ""
    draft = min(late, key=lambda each: each.due_ms or 0)
    unread = "" if draft.read else f", and its group has not read {draft.event.type}"
    return (
        f"{draft.node.id} was to be called with {draft.event.type} at {words.time(draft.due_ms or 0)} "
        f"and has not been{unread}{_more(len(late))}"
    )


def _running(facts: Facts, words: Words) -> str:
    now = [draft for draft in facts.retrying if draft.due_ms is None or draft.due_ms <= facts.now_ms]
    found = [*facts.pending, *now]
    if found:
        return f"{_with_outcome(facts, words)}{words.open_duty(found[0])}{_more(len(found))}"
    if facts.scene.early:
        event = facts.scene.early[0]
        return f"the cause of {words.event(event)} has not been read yet"
    return ""


def _waiting(facts: Facts, words: Words) -> str:
    return next((f"{_with_outcome(facts, words)}{said}" for said in _waits(facts, words)), "")


def _waits(facts: Facts, words: Words) -> list[str]:
    """What the saga waits for, the nearest first."""
    until = f" until {words.time(facts.until_ms)}" if facts.until_ms is not None else ""
    found = []
    if facts.retrying:
        draft = min(facts.retrying, key=lambda each: (each.due_ms or 0, each.node.id))
        found.append(words.open_duty(draft))
    if facts.outcome is None:
        found += [f"waiting for {name} from outside{until}" for draft in facts.armed for name in outside(facts, draft)]
        found += [f"{_join(facts, wait)}{until}: {words.wait(wait)}" for wait in facts.hoping]
    found += [f"waiting for {name} from outside{until}" for name in facts.awaited]
    found += [f"{_timer(draft)}: {draft.node.id} is called at {words.time(draft.due_ms or 0)}" for draft in facts.armed]
    return found


def _join(facts: Facts, wait: Wait) -> str:
    for name in wait.missing:
        if name in facts.coming:
            return f"waiting for {name} from {emitter(facts, name) or 'outside'}"
    answers = [entry for name in wait.missing for entry in facts.answers.get(name, ())]
    if answers:
        return f"waiting for {either(list(dict.fromkeys(answers)))} from outside"
    return f"waiting for {wait.missing[0]} from {emitter(facts, wait.missing[0]) or 'outside'}"


def _timer(draft: Draft) -> str:
    return f"waiting for {either(draft.node.stopped_by)}" if draft.node.stopped_by else "waiting for its time"


def _stuck(facts: Facts, words: Words) -> str:
    if facts.hopeless:
        wait = facts.hopeless[0]
        return f"{words.wait(wait)}, which nobody will emit any more{_leaves(facts)}"
    declared = facts.scene.declared
    silent = [
        draft
        for draft in facts.scene.drafts
        if not draft.emitted and draft.node.kind != "batch" and declared.reach_of(draft.node.emits) & declared.ends
    ]
    if silent:
        draft = max(silent, key=lambda each: (each.event.produced_ms, each.event.places, each.node.id))
        how = _HOW.get(draft.status, "handled it and emitted nothing")
        return f"it ended with {words.event(draft.event)}: {draft.node.id} {how}{_leaves(facts)}"
    last = max(facts.scene.events, key=lambda event: (event.produced_ms, event.places))
    return f"it ended with {words.event(last)}: nothing comes of it, and no outcome has come{_leaves(facts)}"


_HOW = {
    "discarded": "was not called again, its dead letter was discarded",
    "stopped": "was stopped before it was called",
    "unneeded": "had nothing to do",
}


def _ending(facts: Facts) -> SagaEvent:
    return next(event for event in facts.scene.events if event.ends is not None)


def _with_outcome(facts: Facts, words: Words) -> str:
    return f"it has its outcome, {words.event(_ending(facts))}; " if facts.outcome is not None else ""


def _leaves(facts: Facts) -> str:
    """Dead letters that do not hold up the saga."""
    if not facts.dead:
        return ""
    draft = facts.dead[0]
    letter = draft.trouble.letter if draft.trouble else ""
    return f"; {draft.node.id} has not handled {draft.event.type}, dead letter {short(letter)} is open{_more(len(facts.dead))}"


def _more(number: int) -> str:
    return f" (and {number - 1} more)" if number > 1 else ""


_STATES: tuple[tuple[State, Callable[[Facts, Words], str]], ...] = (
    ("conflict", _conflict),
    ("diverged", _diverged),
    ("failed", _failed),
    ("truncated", _truncated),
    ("partially-compensated", _partially_compensated),
    ("compensating", _compensating),
    ("compensated", _compensated),
    ("completed", _completed),
    ("late", _late),
    ("running", _running),
    ("waiting", _waiting),
)
