"""Bugs that are planted, by name: each replaces a piece of the library while its context is entered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from choreo.runtime.sagas import deadlines, joins, steps
from choreo.runtime.sagas.memory import Memory
from choreo.runtime.sagas.turn import Call, Decision
from choreo.runtime.sagas.turns import Turns
from choreo.store.port import Note


@contextmanager
def tombstone_ignored() -> Iterator[None]:
    """A step starts though its saga has failed."""
    as_step = Turns._as_step

    def blind(self: Any, job: Any, handler: Any, calls: Any, memory: Any, turn: Any = None) -> Any:
        with mock.patch.object(steps, "failure_of", return_value=None):
            started = as_step(self, job, handler, calls, memory, turn)
        return Decision(started.calls, holds=turn.holds if turn else lambda: True, conclude=started.conclude)

    with mock.patch.object(Turns, "_as_step", blind):
        yield


@contextmanager
def compensated_twice() -> Iterator[None]:
    """Each failure undoes the step, not only the first."""
    compensate = Turns._compensate

    async def again(self: Any, job: Any, handler: Any, rule: Any, memory: Any) -> Any:
        mine = job.metadata.event_id
        if steps.failure_of(memory) in {None, mine}:
            return await compensate(self, job, handler, rule, memory)
        done = [note for note in memory.notes if note.kind == steps.DONE]
        as_if_first = Memory(memory.key, [*done, Note(len(done), *steps.failed(mine))])
        return Decision((await compensate(self, job, handler, rule, as_if_first)).calls)

    with mock.patch.object(Turns, "_compensate", again):
        yield


@contextmanager
def never_ran_compensated() -> Iterator[None]:
    """A failure that comes first undoes a step all the same."""
    compensate = Turns._compensate

    async def eager(self: Any, job: Any, handler: Any, rule: Any, memory: Any) -> Any:
        first = steps.failure_of(memory) is None
        turn = await compensate(self, job, handler, rule, memory)
        if turn.calls or not first:
            return turn
        made = rule.undoes[0].model_construct(order=job.event.order, token="")
        return Decision([Call(([made] if rule.takes_list else made, job.event), "/never", "never")], holds=turn.holds)

    with mock.patch.object(Turns, "_compensate", eager):
        yield


@contextmanager
def join_fires_again() -> Iterator[None]:
    """That a join has fired is not noted, only one event more."""
    join = Turns._join

    async def unaware(self: Any, job: Any, handler: Any, rule: Any, memory: Any) -> Any:
        turn = await join(self, job, handler, rule, memory)
        place = joins.place_of(rule, type(job.event))
        if not turn.calls or place is None:
            return turn
        return Decision(turn.calls, holds=turn.holds, conclude=lambda _: self._arrive(memory, place, job))

    with mock.patch.object(Turns, "_join", unaware):
        yield


@contextmanager
def deadline_not_stopped() -> Iterator[None]:
    """What should stop a timer does not."""
    with mock.patch.object(deadlines, "stop", return_value=[]):
        yield


BUGS: dict[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "tombstone ignored": (tombstone_ignored, "undone exactly once"),
    "compensation twice": (compensated_twice, "undone exactly once"),
    "compensation of a step that never ran": (never_ran_compensated, "nothing undone that never happened"),
    "join firing twice": (join_fires_again, "a join fires once"),
    "deadline firing after its unless": (deadline_not_stopped, "no deadline after its unless"),
}
"""Each with the invariant that it breaks."""
