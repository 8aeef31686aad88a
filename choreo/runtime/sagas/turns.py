"""A handler's turn with an event, where more than the event decides: whether it is called, with what, and what is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, cast

import structlog

from choreo.errors import ChoreoError, DecodeError, OvertakenError, SchemaNotCachedError
from choreo.events import Event
from choreo.handler import Compensation, Deadline, Handler, Join
from choreo.log.port import Record
from choreo.observe.w3c import sampled
from choreo.runtime.clock import Clock
from choreo.runtime.partitions import AbandonedError, Job, Task, identity
from choreo.runtime.sagas import deadlines, joins, steps
from choreo.runtime.sagas.memory import Memories, Memory
from choreo.runtime.sagas.noting import JoinTurn, StepTurn
from choreo.runtime.sagas.turn import Call, Decision, Emitted, Turn
from choreo.runtime.unit import UnitOfWork
from choreo.service import Service
from choreo.store.port import Note, Timer
from choreo.wire import Codec
from choreo.wire.codec import bare
from choreo.wire.ids import note_key

_log = structlog.get_logger("choreo.runtime")

_ARRIVALS = 4096
"""How many events that wait in joins are kept as they were read: most joins fire soon."""


def is_needed(service: Service) -> bool:
    """Whether a service has handlers that take turns."""
    return any(isinstance(handler.rule, Compensation | Join | Deadline) for handler in service.handlers.values())


class _Place(NamedTuple):
    """Where something is that a handler has to remember.

    Attributes:
        key_of: the key, by what its events have in common.
        subject_of: what that is.
    """

    key_of: Callable[[str], bytes]
    subject_of: Callable[[Job], object] = attrgetter("metadata.correlation_id")


class Turns:
    """Decides the turns of one service instance's handlers."""

    def __init__(self, service: Service, *, unit: UnitOfWork, codec: Codec, clock: Clock) -> None:
        self._unit = unit
        self._memories = Memories(unit.store)
        self._codec = codec
        self._clock = clock
        self._arrivals: dict[tuple[type[Event], bytes], Event] = {}
        self._undoes: dict[str, frozenset[type[Event]]] = {}
        for handler in service.handlers.values():
            if isinstance(handler.rule, Compensation):
                known = self._undoes.get(handler.rule.step, frozenset())
                self._undoes[handler.rule.step] = known.union(handler.rule.undoes)
        self._places = {name: places for name, each in service.handlers.items() if (places := self._places_of(each))}

    def _places_of(self, handler: Handler) -> Sequence[_Place]:
        """Where that is which a handler has to remember: as a step that may be undone, then for its rule."""
        rule, name = handler.rule, handler.name
        places = [_Place(steps.keys(name))] if name in self._undoes else []
        if isinstance(rule, Compensation):
            places.append(_Place(steps.keys(rule.step)))
        elif isinstance(rule, Join):
            places.append(
                _Place(joins.keys(name), attrgetter(f"event.{rule.by}")) if rule.by else _Place(joins.keys(name))
            )
        elif isinstance(rule, Deadline):
            places.append(_Place(deadlines.keys(name)))
        return places

    async def prepare(self, jobs: Iterable[Job]) -> None:
        """Read at once what the turns of these jobs need."""
        tasks, keys = [], []
        for job in jobs:
            for task in job.left if job.event is not None else ():  # one that is discarded has no turn
                task.held = ()
                for key_of, subject_of in self._places.get(task.handler.name, ()):
                    tasks.append(task)
                    keys.append(key_of(str(subject_of(job))))
        if tasks:
            for task, memory in zip(tasks, await self._memories.of(keys), strict=True):
                task.held += (memory,)

    def step(self, job: Job, task: Task) -> Turn | None:
        """The turn of a step that has no rule of its own, if nothing has to be waited for."""
        if task.handler.rule is not None or not task.held:
            return None
        return self._as_step(job, task.handler, (Call((job.event,)),), task.held[0])

    async def begin(self, job: Job, task: Task) -> Turn | None:
        """Decide any turn; None for a handler that is called with each event alone."""
        handler = task.handler
        if handler.name not in self._places:
            return None
        if not task.held:
            await self.prepare([job])
        rule, held = handler.rule, task.held
        if rule is None:
            return self.step(job, task)
        if isinstance(rule, Compensation):
            return await self._compensate(job, handler, rule, held[-1])
        turn = (
            await self._join(job, handler, rule, held[-1])
            if isinstance(rule, Join)
            else self._deadline(job, handler, cast("Deadline", rule), held[-1])
        )
        return self._as_step(job, handler, turn.calls, held[0], turn) if handler.name in self._undoes else turn

    def forget(self) -> None:
        """What is pending has been undone."""
        self._memories.forget()

    def _note(self, memory: Memory, kind: str, content: bytes, *, alone: bool = False, keep_ms: int = 0) -> None:
        self._unit.note(memory, kind, content, keep_ms or self._clock.now_ms(), alone=alone)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _as_step(
        self, job: Job, handler: Handler, calls: Sequence[Call], memory: Memory, turn: Turn | None = None
    ) -> Turn:
        """A turn of a handler that some compensation undoes: not called once its saga has failed, else noted.

        Args:
            turn: that of its rule, if it has one.
        """
        if turn is not None and not calls:
            return turn
        if memory.notes and steps.failure_of(memory) is not None:
            _log.info("step not started, its saga has failed", **identity(job, handler))
            return Turn() if turn is None else Decision(conclude=turn.conclude)
        return StepTurn(self._unit.note, calls, memory, self._undoes[handler.name], turn)

    async def _compensate(self, job: Job, handler: Handler, rule: Compensation, memory: Memory) -> Turn:
        """Undo one event that the step has emitted; what else there is to undo has turns of its own."""
        mine = job.metadata.event_id
        failure = steps.failure_of(memory)
        if failure is None:
            await self._fail(job, handler, memory)
        elif failure != mine:
            _log.info("another failure of its saga came before", **identity(job, handler), failure=failure)
            return Turn()
        notes, undone = memory.notes, steps.undone_ids(memory)
        runs = (self._taken(handler, rule, run) for run in steps.to_undo(memory))
        parts = [part for run in runs for part in ([run] if rule.takes_list and run else [[each] for each in run])]
        left = [part for part in parts if part[0].event_id not in undone]
        if not left:
            return Turn()
        first, more = left[0][0].event_id, len(left) > 1

        def conclude(_: Emitted) -> None:
            if more:
                self._note(memory, *steps.undone(first))
            _log.info("step undone", **identity(job, handler), undone=first, more=more)

        classes = {event.contract.type_name: event for event in rule.undoes}
        events = [await self._decoded(each.record, classes[each.type_name]) for each in left[0]]
        arguments = (events if rule.takes_list else events[0], job.event)
        others = [each.record.headers for each in left[0]]
        return Decision(
            [Call(arguments, f"/{first}", first, first, lambda: others)],
            holds=lambda: memory.notes is notes,
            conclude=conclude,
            more=more,
        )

    async def _fail(self, job: Job, handler: Handler, memory: Memory) -> None:
        """Note the failure now, whatever becomes of the calls: from here on the step does not start."""
        if job.back is not None and job.back.is_for(handler.name):
            if await self._memories.is_outdated(memory):
                raise OvertakenError(f"the saga of {handler} went on in another instance")
            raise ChoreoError(
                f"what {handler} has to undo is not known any more",
                why="the notes of this saga were removed after CHOREO_SAGA_KEEP",
                remedy="undo it by hand, then discard this dead letter",
            )
        if not self._unit.add(job.partition, job.offset, ()):
            raise AbandonedError
        self._note(memory, *steps.failed(job.metadata.event_id))

    def _taken(self, handler: Handler, rule: Compensation, run: Sequence[steps.Emission]) -> list[steps.Emission]:
        """Of what a run of the step emitted, the part that this compensation takes.

        Raises:
            DecodeError: some of it no compensation knows (any more).
        """
        known = {event.contract.type_name for event in self._undoes[rule.step]}
        if unknown := {each.type_name for each in run} - known:
            raise DecodeError(
                f"{handler} cannot undo {', '.join(sorted(unknown))}, which step {rule.step!r} emitted",
                why="no compensation takes it any more",
                remedy="bring the class back before redriving",
            )
        mine = {event.contract.type_name for event in rule.undoes}
        return [each for each in run if each.type_name in mine]

    # --- joins ------------------------------------------------------------------------------------------------------

    async def _join(self, job: Job, handler: Handler, rule: Join, memory: Memory) -> Turn:
        notes, mine = memory.notes, job.metadata.event_id
        state = joins.state_of(notes)
        place = joins.place_of(rule, type(job.event))
        if state.ended or (place is not None and joins.is_surplus(rule, state, place)):
            why = state.ended or "another one of its kind came before"
            _log.info("event came too late for its join", **identity(job, handler), reason=why)
            return Turn()
        if place is None:
            _log.info("join cannot fire any more", **identity(job, handler), missing=_missing(rule, state))
            return JoinTurn(memory, notes, partial(self._note, memory, *joins.closed(mine), alone=True))
        wanted = await self._wanted(job, rule, state, place) if rule.gathers else 0
        if not joins.is_complete(rule, state, place, wanted):
            return JoinTurn(memory, notes, partial(self._arrive, memory, place, job))
        events = {
            at: [await self._arrived(note, rule.events[at]) for note in those] for at, those in state.arrived.items()
        }
        events.setdefault(place, []).append(job.event)
        subject = str(self._places[handler.name][-1].subject_of(job))
        call = Call(_arguments(rule, events, wanted), subject=subject, others=lambda: joins.headers(state))
        return JoinTurn(memory, notes, partial(self._note, memory, *joins.fired(mine), alone=True), (call,))

    async def _wanted(self, job: Job, rule: Join, state: joins.State, place: int) -> int:
        """How many events a join gathers; not known yet: none."""
        if not callable(rule.count):
            return joins.count_of(rule, None)
        first = job.event if place == 0 else None
        if 0 in state.arrived:
            first = await self._arrived(state.arrived[0][0], rule.events[0])
        return joins.count_of(rule, first)

    def _arrive(self, memory: Memory, place: int, job: Job) -> None:
        kept, traceparent = bare(job.record), job.metadata.traceparent
        if not kept.headers and traceparent is not None and sampled(traceparent):  # what fires the join is linked to it
            kept = kept._replace(headers=[("traceparent", traceparent.encode())])
        kind, content = joins.arrived(place, kept)
        self._note(memory, kind, content)
        if len(self._arrivals) >= _ARRIVALS:
            self._arrivals.clear()
        self._arrivals[type(job.event), content] = job.event

    async def _arrived(self, note: Note, event_class: type[Event]) -> Event:
        """The event of a note: as it was read when it came, if that was not long ago."""
        known = self._arrivals.get((event_class, note.content))
        return known if known is not None else await self._decoded(joins.record_of(note), event_class)

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _deadline(self, job: Job, handler: Handler, rule: Deadline, memory: Memory) -> Turn:
        if job.timer is not None or (job.back is not None and job.back.is_for(handler.name)):
            return self._call_at_last(job, handler, rule, memory)
        return Decision(conclude=lambda _: self._set(job, handler, rule, memory))

    def _set(self, job: Job, handler: Handler, rule: Deadline, memory: Memory) -> None:
        """Note an event that sets the timer, or stops it."""
        state, mine = deadlines.state_of(memory), job.metadata.event_id
        at_ms = deadlines.produced_ms(job.metadata, job.record.timestamp)
        event = type(job.event)
        if event in rule.unless:
            for stopped in deadlines.stop(state, mine, at_ms, sets=event is rule.event):
                self._unit.unset(_timer_id(handler, stopped.event_id))
        if event is rule.event and (armed := deadlines.arm(rule, state, mine, at_ms)):
            self._wind(job, handler, rule, armed)
        self._write(memory, state)

    def _call_at_last(self, job: Job, handler: Handler, rule: Deadline, memory: Memory) -> Turn:
        mine = job.metadata.event_id
        timer = deadlines.state_of(memory).armed.get(mine)
        if timer is None or timer.due_ms > self._clock.now_ms():  # the latter is the timer of the call after this one
            if job.back is not None and job.back.said is not None and job.back.said.redrives:
                _log.warning(
                    "a redriven call is not made: it was stopped, or others have followed it", **identity(job, handler)
                )
            return Decision(conclude=lambda _: self._let_go(job, memory)) if timer is None else Turn()
        armed = timer

        def conclude(_: Emitted) -> None:
            _log.info("deadline has come", **identity(job, handler), due_ms=armed.due_ms, times=armed.times)
            state = deadlines.state_of(memory)
            following = deadlines.called(rule, state, armed, self._clock.now_ms())
            if following:
                self._wind(job, handler, rule, following)
            else:
                self._unit.unset(_timer_id(handler, mine))
            self._write(memory, state)

        call = Call((job.event,), f"#{armed.times}" if armed.times > 1 else "")
        return Decision(
            [call],
            holds=lambda: deadlines.state_of(memory).armed.get(mine) == armed,
            conclude=conclude,
            bury=lambda: conclude(()) if armed.times < rule.times else None,  # the reminders after it still come
        )

    def _let_go(self, job: Job, memory: Memory) -> None:
        """A timer was stopped before its call; the note is written anew, so that somebody who knows better is heard."""
        if job.timer is not None:
            self._unit.unset(job.timer.timer_id)
            self._write(memory, deadlines.state_of(memory))

    def _wind(self, job: Job, handler: Handler, rule: Deadline, armed: deadlines.Armed) -> None:
        due_ms = armed.due_ms + round(rule.grace * 1000)
        self._unit.set_timer(
            Timer(_timer_id(handler, armed.event_id), job.partition.at, due_ms, handler.name, job.record)
        )

    def _write(self, memory: Memory, state: deadlines.State) -> None:
        keep_ms = deadlines.keep_ms(state, self._clock.now_ms())
        self._note(memory, deadlines.KIND, deadlines.pack(state), alone=True, keep_ms=keep_ms)

    async def _decoded(self, record: Record, event_class: type[Event]) -> Event:
        while True:
            try:
                return self._codec.decode(record, event_class)
            except SchemaNotCachedError as missing:
                await self._codec.load(missing.schema_id)


def _arguments(rule: Join, events: dict[int, list[Any]], wanted: int) -> tuple[Any, ...]:
    last = len(rule.events) - 1
    arguments = [events[at][0] if at in events else None for at in range(last + 1)]
    if rule.gathers:
        arguments[last] = events.get(last, [])[:wanted]
    return tuple(arguments)


def _missing(rule: Join, state: joins.State) -> list[str]:
    return [event.contract.type_name for at, event in enumerate(rule.events) if at not in state.arrived]


def _timer_id(handler: Handler, event_id: str) -> bytes:
    return note_key("timer", handler.name, event_id)
