"""Why a saga is as it is, in plain sentences: what it waits for, who owes it, whether they are alive, what to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from choreo.saga.fold.words import both, calls, moment, short
from choreo.saga.model import Duty, Effect, Saga, SagaEvent

_SHOWN = 5
"""Of how many open duties or dead letters is told; a saga of many thousand events may have as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """How a service's consumer group is.

    Attributes:
        members: how many instances are in it; None if that is not known.
        lag: how many records it has not read; None if that is not known.
        progress_ms: when it last committed something new; None if that is not known.
    """

    members: int | None = None
    lag: int | None = None
    progress_ms: int | None = None


def why(saga: Saga, alive: Mapping[str, Group]) -> list[str]:
    """Sentences about a saga, the most important first; the last ones say what to do.

    Args:
        alive: how the groups are, by service; who is not among them is not known.
    """
    return list(_Teller(saga, alive).sentences())


class _Teller:
    def __init__(self, saga: Saga, alive: Mapping[str, Group]) -> None:
        self._saga = saga
        self._alive = alive
        self._event = {event.id: event for event in saga.events}

    def sentences(self) -> Iterator[str]:
        saga = self._saga
        yield f"The saga is {saga.state}: {saga.reason}."
        dead = self._duties("dead")
        yield from self._each(dead, self._dead_letter)
        yield from self._oddities()
        tell = {
            "conflict": self._conflict,
            "diverged": self._diverged,
            "truncated": self._truncated,
            "partially-compensated": self._given_up,
            "stuck": self._stuck,
        }.get(saga.state)
        if tell is not None:
            yield from tell()
        yield from self._effects()
        yield from self._open()
        if saga.ended_ms is not None and not dead and tell is None:
            yield f"It ended at {self._time(saga.ended_ms)}; nothing is to be done."

    # --- what is open -------------------------------------------------------------------------------------------------

    def _duties(self, *statuses: str) -> list[Duty]:
        return [duty for duty in self._saga.duties if duty.status in statuses]

    def _each(self, duties: list[Duty], tell: object) -> Iterator[str]:
        for duty in duties[:_SHOWN]:
            yield from tell(duty)  # type: ignore[operator] # one of the methods below
        if len(duties) > _SHOWN:
            yield f"There are {len(duties) - _SHOWN} more like these."

    def _open(self) -> Iterator[str]:
        pending, retrying, armed = self._duties("pending"), self._duties("retrying"), self._duties("armed")
        yield from self._each(pending, self._pending)
        yield from self._each(retrying, self._retrying)
        yield from self._each(armed, self._armed)
        late = armed if self._saga.state == "late" else [duty for duty in armed if self._is_empty(duty)]
        for group in sorted({_service(duty) for duty in (*pending, *retrying, *late)}):
            yield from self._group(group)
        yield from self._answers()

    def _is_empty(self, duty: Duty) -> bool:
        """Whether nobody is there who would let a timer go off."""
        return self._alive.get(_service(duty), Group()).members == 0

    def _pending(self, duty: Duty) -> Iterator[str]:
        event = self._event[duty.event]
        group = _service(duty)
        yield (
            f"{duty.handler} has not handled {event.type}: it lies at {event.places[0]} since "
            f"{self._time(event.written_ms)}, and group {group} has not told that it is done with it."
        )

    def _retrying(self, duty: Duty) -> Iterator[str]:
        event = self._event[duty.event]
        when = "as soon as its group reads it" if duty.due_ms is None else f"at {self._time(duty.due_ms)}"
        failed = f"{calls(duty.attempts)} of it failed" if duty.attempts else "it failed"
        error = f" ({duty.error})" if duty.error else ""
        yield f"{event.type} was delivered to {duty.handler}, and {failed}{error}; it is called again {when}."

    def _armed(self, duty: Duty) -> Iterator[str]:
        event, due = self._event[duty.event], self._time(duty.due_ms or 0)
        yield f"The timer of {duty.handler}, set by {event.type}, goes off at {due} unless something stops it before."

    def _group(self, name: str) -> Iterator[str]:
        """How a group is, and what to do about it."""
        group = self._alive.get(name, Group())
        if group.members == 0:
            yield f"Nobody is in group {name}, so nothing is handled there."
            yield f"Next: start it, choreo run MODULE:{name}"
            return
        said = (
            "Whether group {} runs is not known"
            if group.members is None
            else f"Group {{}} has {_members(group.members)}"
        )
        if group.lag is not None:
            said += f", is {group.lag:,} records behind" if group.lag else ", is not behind"
        if group.progress_ms is not None:
            said += f", and last moved on at {self._time(group.progress_ms)}"
        yield f"{said.format(name)}."
        if group.members is None:
            yield f"Next: see that it runs; if it does not, choreo run MODULE:{name}"
        elif group.lag:
            yield f"Next: wait; if its lag does not fall, look at the log of {name}."

    def _answers(self) -> Iterator[str]:
        for expected in self._saga.expected:
            if expected.handler is None:
                until = (
                    f"; there is time until {self._time(expected.until_ms)}" if expected.until_ms is not None else ""
                )
                for name in expected.what:
                    yield f"{name} comes from outside, and has not come{until}: {expected.because}."
                    yield f"Next: publish it if it is due, {self._publish(name)}"

    def _publish(self, name: str) -> str:
        return f"choreo publish {name} --correlation-id {self._saga.id} --json '{{...}}'"

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _dead_letter(self, duty: Duty) -> Iterator[str]:
        event = self._event[duty.event]
        again = f", {duty.redrives} times redriven" if duty.redrives else ""
        after = f" after {calls(duty.attempts)}" if duty.attempts else ""
        yield (
            f"{event.type} ({event.places[0]}) was delivered to {duty.handler}, which gave up{after}{again}; "
            f"the last error was {duty.error or 'not told'}."
        )
        yield f"Next: see it, choreo dlq show {short(duty.letter)}"
        yield f"Once the cause is mended: choreo dlq redrive {short(duty.letter)} --why '...'"
        yield f"If it need not be handled: choreo dlq discard {short(duty.letter)} --why '...'"

    def _oddities(self) -> Iterator[str]:
        odd = [event for event in self._saga.events if event.oddity]
        for event in odd[:_SHOWN]:
            yield f"{event.type or 'The event'} at {event.places[0]} is odd: {event.oddity}."
        if len(odd) > _SHOWN:
            yield f"There are {len(odd) - _SHOWN} more like these."

    def _conflict(self) -> Iterator[str]:
        ends = [event for event in self._saga.events if event.ends is not None]
        for event in ends[:_SHOWN]:
            yield f"{self._said(event)} ends it as {event.ends}."
        yield "Next: decide by hand which outcome holds, and undo the other; choreo check shows who else may decide (C14)."

    def _diverged(self) -> Iterator[str]:
        yield (
            "Next: find which version of that service runs; give the tracker the same declarations, or mend the service. "
            "choreo check shows what is declared."
        )

    def _truncated(self) -> Iterator[str]:
        first = self._saga.events[0] if self._saga.events else None
        if first is not None:
            yield f"What is left begins with {self._said(first)} at {first.places[0]}."
        yield "What lay before was removed by retention, so what it led to cannot be told."
        yield "Next: ask the services' own stores; keep the topics for longer (retention.ms) than sagas take."

    def _stuck(self) -> Iterator[str]:
        yield "No handler owes anything, no timer is set, and no retry is due: nothing will happen by itself."
        gathering = self._duties("gathering")
        for handler in dict.fromkeys(duty.handler for duty in gathering):
            have = [self._event[duty.event].type for duty in gathering if duty.handler == handler]
            yield f"{handler} keeps {both(list(dict.fromkeys(have)))} and is never called."
        discarded = self._duties("discarded")
        for duty in discarded[:_SHOWN]:
            yield f"{duty.handler} was to handle {self._event[duty.event].type}, and its dead letter was discarded."
        yield (
            "Next: look why the handler named above emitted nothing; to end the saga by hand, publish what is missing, "
            f"{self._publish('TYPE')}"
        )

    def _given_up(self) -> Iterator[str]:
        yield "What is left undone will not be undone by itself."
        yield "Next: undo it by hand, in the service that did it."

    def _effects(self) -> Iterator[str]:
        """What is still to be undone, or never will be."""
        for line in [line for line in self._saga.ledger if line.status in {"owed", "impossible"}][:_SHOWN]:
            yield self._effect(line)

    def _effect(self, line: Effect) -> str:
        failure = self._event[line.failure].type if line.failure in self._event else "a failure"
        what = "owes to undo" if line.status == "owed" else "has given up undoing"
        return f"{line.compensation} {what} {line.type} of {line.step}, because of {failure}."

    # --- words --------------------------------------------------------------------------------------------------------

    def _time(self, ms: int) -> str:
        return moment(ms, self._saga.started_ms)

    def _said(self, event: SagaEvent) -> str:
        return f"{event.type or 'an event without a type'} from {event.handler or event.source} at {self._time(event.produced_ms)}"


def _service(duty: Duty) -> str:
    return duty.handler.rpartition(".")[0]


def _members(number: int) -> str:
    return "1 member" if number == 1 else f"{number} members"
