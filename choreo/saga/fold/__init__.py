"""The fold: from what was seen of a saga to what it is. Pure; the same in any order of arrival, duplicates included.

    saga = fold(sightings, choreography.graph, around)

The states, of which the first that applies is the saga's:

- `conflict`: two different outcomes.
- `diverged`: an event that nothing declared explains.
- `failed`: a dead letter is open. Once the saga has its outcome, one of a leaf is only mentioned.
- `truncated`: an event's cause is not there, though all that is older has been read.
- `partially-compensated`: what was to be undone was given up, or nobody is left who would undo it.
- `compensating`: something is to be undone.
- `compensated`: it has failed, all is undone, and nobody owes anything.
- `completed`: it has its good outcome and nobody owes anything; or none was to come, and all branches have ended.
- `late`: a deadline's time is over, and its handler was not called.
- `running`: a handler has not handled an event.
- `waiting`: for a retry, for what a join or a deadline waits for, for an event from outside.
- `stuck`: none of these. Nothing will happen by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from choreo.graph import Graph
from choreo.saga.fold import duties, ledger, timers, waits
from choreo.saga.fold.declared import declared
from choreo.saga.fold.emitters import explained
from choreo.saga.fold.events import in_order, sort
from choreo.saga.fold.expected import expected
from choreo.saga.fold.facts import Facts, first_of
from choreo.saga.fold.scene import Scene
from choreo.saga.fold.troubles import troubles
from choreo.saga.fold.verdict import verdict
from choreo.saga.fold.words import Words
from choreo.saga.model import Saga, State, Surroundings
from choreo.saga.outcome import outcome_of
from choreo.saga.sighting import Sighting

__all__ = ["fold"]

_ENDED: frozenset[State] = frozenset({"completed", "compensated", "partially-compensated", "conflict"})


def fold(sightings: Sequence[Sighting], graph: Graph, around: Surroundings) -> Saga:
    """The saga that these sightings tell of.

    Args:
        sightings: all of one saga, with what was done about its dead letters.
        graph: the declared choreography. It is looked through once, so hand over the same one each time.
        around: what is known beside.
    """
    known = declared(graph)
    found = sort(sightings)
    name = next((seen.saga for seen in sightings if seen.saga), "")
    scene = explained(name, in_order(found.events), known, around)
    wrong = troubles(found, known, around) if found.agains or found.letters else {}
    duties.draft(scene, wrong)
    facts = _settled(scene)
    times = [*(event.produced_ms for event in scene.events), *(each.last_ms for each in wrong.values())]
    started_ms = min((event.produced_ms for event in scene.events), default=0)
    words = Words(started_ms, around.now_ms)
    state, reason = verdict(facts, words)
    updated_ms = max(times, default=0)
    first = facts.first
    is_over = state in _ENDED and facts.is_at_rest
    return Saga(
        id=scene.name,
        type=first.type if first else "",
        key=first.key if first else "",
        state=state,
        reason=reason,
        outcome=facts.outcome,
        events=scene.events,
        duties=tuple([draft.duty() for draft in scene.drafts]),
        ledger=facts.ledger,
        expected=() if is_over else expected(facts, words),
        started_ms=started_ms,
        updated_ms=updated_ms,
        ended_ms=updated_ms if is_over else None,
        parent=first.parent if first else None,
        changes_ms=_changes_ms(facts),
    )


def _settled(scene: Scene) -> Facts:
    """Settle what hangs together, and take stock."""
    outcome = outcome_of(event.ends for event in scene.events if event.ends)
    failures = [event for event in scene.events if event.failure or event.ends == "failed"]
    timers.settle(scene)
    waits.settle(scene)
    duties.settle_steps(scene)
    failed = outcome == "failed"
    if failures and outcome is None:
        failed = not scene.declared.reach_of(event.type for event in failures) & scene.declared.ends
    return Facts(scene, first_of(scene), outcome, failures, ledger.settle(scene, failed=failed))


def _changes_ms(facts: Facts) -> int | None:
    due = [draft.due_ms for draft in facts.retrying if draft.due_ms is not None and draft.due_ms > facts.now_ms]
    over = [draft.next_ms for draft in facts.scene.drafts if draft.next_ms is not None]
    lost = [max(event.written_ms for event in facts.scene.early)] if facts.scene.early else []
    return min([*due, *over, *lost], default=None)
