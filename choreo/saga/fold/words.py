"""The words of reasons, for the person who meets them at night: exact names, times as UTC. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from choreo.graph import Joining
from choreo.saga.fold.scene import Draft, Wait
from choreo.saga.model import SagaEvent

_YEAR_10000 = 253_402_300_800_000


def moment(ms: int, day_of_ms: int) -> str:
    """A time as UTC hh:mm:ss, with its day if that is another one than the day of the second time."""
    if not 0 <= ms < _YEAR_10000:
        return f"{ms} ms"
    when = datetime.fromtimestamp(ms // 1000, UTC)
    is_same_day = ms // 86_400_000 == day_of_ms // 86_400_000
    return when.strftime("%H:%M:%S" if is_same_day else "%Y-%m-%d %H:%M:%S")


def either(names: Sequence[str]) -> str:
    """Names as alternatives."""
    return _listed(names, "or")


def both(names: Sequence[str]) -> str:
    """Names together."""
    return _listed(names, "and")


def _listed(names: Sequence[str], word: str) -> str:
    if len(names) < 2:  # noqa: PLR2004 - one name needs no word between
        return names[0] if names else "nothing"
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def short(letter: str) -> str:
    """As much of a dead letter's id as `choreo dlq` needs."""
    return letter[:8]


class Words:
    """Speaks of one saga.

    Args:
        started_ms: when it began: times of its first day are told without the day.
        now_ms: the moment that is asked about.
    """

    def __init__(self, started_ms: int, now_ms: int) -> None:
        self._started_ms = started_ms
        self._now_ms = now_ms

    def time(self, ms: int) -> str:
        """A time."""
        return moment(ms, self._started_ms)

    def event(self, event: SagaEvent) -> str:
        """An event with who emitted it and when."""
        return f"{event.type or 'an event without a type'} from {event.handler or event.source} at {self.time(event.produced_ms)}"

    def open_duty(self, draft: Draft) -> str:
        """What a handler owes."""
        who, what, trouble = draft.node.id, draft.event.type, draft.trouble
        if draft.status == "dead" and trouble is not None:
            after = f" after {calls(trouble.attempts)}" if trouble.attempts else ""
            error = f" ({trouble.error})" if trouble.error else ""
            return f"{who} has given up on {what}{after}{error}: dead letter {short(trouble.letter)} is open"
        if draft.status == "retrying" and trouble is not None:
            if draft.due_ms is None:
                how = "it was redriven" if trouble.redrives else "it comes through the retry topic"
                return f"{who} is called again with {what}: {how}"
            when = (
                f"at {self.time(draft.due_ms)}" if draft.due_ms > self._now_ms else f"since {self.time(draft.due_ms)}"
            )
            verb = "is called again" if draft.due_ms > self._now_ms else "is to be called again"
            return f"{who} {verb} with {what} {when}, {calls(trouble.attempts)} failed"
        if draft.read and draft.node.kind != "compensation":
            return f"{who} holds {what} back: an earlier event of key {draft.event.key} is not handled yet"
        return f"{who} has not handled {what} of {self.time(draft.event.produced_ms)} yet"

    def wait(self, wait: Wait) -> str:
        """What a join waits for."""
        have = both(list(dict.fromkeys(draft.event.type for draft in wait.have)))
        rule = wait.node.rule
        gathered = rule.gathers if isinstance(rule, Joining) else None
        if gathered is not None and gathered in wait.missing:
            number = f"{wait.need} more of {gathered}" if wait.need else f"more of {gathered}"
            missing = both([*(name for name in wait.missing if name != gathered), number])
        elif wait.need < len(wait.missing):
            missing = f"{wait.need} of {both(wait.missing)}" if wait.need > 1 else either(wait.missing)
        else:
            missing = both(wait.missing)
        key = f" with key {wait.key}, maybe of another saga" if wait.key else ""
        return f"{wait.node.id} has {have} and waits for {missing}{key}"


def calls(number: int) -> str:
    """How often something was called."""
    return "1 call" if number == 1 else f"{number} calls"
