"""The ground truth: sagas whose state, reason, expected steps and ledger are known because somebody decided them.

for truth in truths(seed=1, count=1000): ...     # what is true
world = World(list(truths(1, 1000)), seed=1)     # and the records that tell it, see `tests.tracker.laying`
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from choreo.graph import HandlerNode, Joining, Timing, Undoing
from choreo.saga.model import State
from tests.tracker.play import ENDS, FAILURES, GRAPH, TAKERS, Happened, Play, Temper

NOW_MS = 1_700_000_000_000
"""The moment at which the truth is asked for."""
LATE_MS = 5_500
"""After so long a deadline of these flows is late: grace and slack."""
_MINUTE = 60_000
_DEAF = {"extras"}
"""Services that did something and never hear that it was in vain, while others undo what they did."""
_ORDER: tuple[State, ...] = (
    *("conflict", "diverged", "failed", "truncated", "partially-compensated", "compensating", "compensated"),
    *("completed", "late", "running", "waiting", "stuck"),
)


@dataclass(frozen=True)
class Open:
    """What a handler owes about an event."""

    node: HandlerNode
    event: Happened
    due_ms: int | None = None


class Truth:
    """What is true of a played saga.

    Attributes:
        play: what was decided.
        loses_start: whether its first record has been removed by retention.
    """

    def __init__(self, play: Play, *, loses_start: bool = False) -> None:
        self.play = play
        self.loses_start = loses_start

    @property
    def saga(self) -> str:
        """Its correlation id."""
        return self.play.name

    # --- what is open -------------------------------------------------------------------------------------------------

    @cached_property
    def pending(self) -> list[Open]:
        """Events that a handler's group has not read."""
        return [
            Open(node, event, self._timer_ms(node, event))
            for event in self.play.events
            for node in TAKERS.get(event.type, ())
            if event.type in node.consumes and node.service not in event.read_by
        ]

    def _timer_ms(self, node: HandlerNode, event: Happened) -> int | None:
        """When a deadline that was not even read would be due, if nothing stops it."""
        if not isinstance(node.rule, Timing):
            return None
        due_ms = event.at_ms + round(node.rule.within * 1000)
        return None if self.play.is_stopped(node, due_ms) else due_ms

    @cached_property
    def retrying(self) -> list[Open]:
        """Calls that have not been made yet."""
        return [
            Open(again.node, again.of, again.due_ms or None)
            for again in self.play.agains
            if not again.read and not again.discard
        ]

    @cached_property
    def dead(self) -> list[Open]:
        """Open dead letters."""
        return [Open(letter.node, letter.of) for letter in self.play.letters if not letter.settled]

    @cached_property
    def armed(self) -> list[Open]:
        """Timers; of one whose handler may emit nothing nobody knows whether it went off, so by then it has."""
        troubled = {(each.node.id, each.event.id) for each in (*self.dead, *self.retrying)}
        return [
            Open(node, event, due_ms)
            for node, event, due_ms in self.play.timers.values()
            if not self.play.is_stopped(node, due_ms)
            and not (node.may_emit_nothing and due_ms + LATE_MS <= NOW_MS)
            and (node.id, event.id) not in troubled
        ]

    @cached_property
    def types(self) -> set[str]:
        """Of its events."""
        return {event.type for event in self.play.events}

    @cached_property
    def outcomes(self) -> set[str]:
        """What its events declare."""
        return {ENDS[name] for name in self.types if ENDS.get(name)}

    @cached_property
    def outcome(self) -> str | None:
        """The one that it has, or `conflict`."""
        return "conflict" if len(self.outcomes) > 1 else next(iter(self.outcomes), None)

    # --- what can still come ------------------------------------------------------------------------------------------

    @cached_property
    def _waiting(self) -> dict[str, list[str]]:
        """What joins wait for that have some of their events, by the join."""
        found = {}
        for name, have in self.play.arrived.items():
            node = GRAPH.handler[name]
            rule = node.rule
            if (
                not have
                or name in self.play.fired
                or self.types & set(node.stopped_by)
                or not isinstance(rule, Joining)
            ):
                continue
            again = [each.event for each in (*self.dead, *self.retrying) if each.node is node]
            there = {type_name: len(events) for type_name, events in have.items()}
            for event in again:
                there[event.type] = there.get(event.type, 0) + 1
            if rule.gathers:
                missing = [each for each in node.consumes if there.get(each, 0) < (rule.count or 0)]
            else:
                missing = [each for each in node.consumes if each not in there] if len(there) < rule.need else []
            if missing:
                found[name] = missing
        return found

    @cached_property
    def _answers(self) -> set[str]:
        """Events from outside that a trip still hopes for."""
        is_open = self.play.first.type == "TripRequested" and "ApprovalGiven" not in self.types
        return {"ApprovalGiven"} if is_open else set()

    @cached_property
    def _coming(self) -> set[str]:
        """The types that handlers of the saga may still emit."""
        opened = (*self.pending, *self.retrying, *self.armed, *self.dead)
        coming = {name for each in opened if each.node.kind != "batch" for name in each.node.emits}
        before = -1
        while before != len(coming):
            before = len(coming)
            for node in GRAPH.handlers:
                fires = node.id in self._waiting and self._may_fire(node, coming)
                if fires or (node.kind != "batch" and coming & set(node.consumes)):
                    coming |= set(node.emits)
        return coming

    @cached_property
    def _after_answers(self) -> set[str]:
        """What may come of an answer from outside."""
        return {"Approved", "TripConfirmed"} if self._answers else set()

    def _may_fire(self, node: HandlerNode, coming: set[str]) -> bool:
        missing, rule = self._waiting[node.id], node.rule
        found = [name for name in missing if name in coming or name in self._after_answers]
        left = (
            rule.need - (len(node.consumes) - len(missing))
            if isinstance(rule, Joining) and not rule.gathers
            else len(missing)
        )
        return len(found) >= left

    @cached_property
    def hoping(self) -> list[str]:
        """Joins that can still fire."""
        return [name for name in self._waiting if self._may_fire(GRAPH.handler[name], self._coming)]

    @cached_property
    def expected(self) -> set[tuple[tuple[str, ...], str | None]]:
        """What is still to come and from whom."""
        if self.is_over:
            return set()
        opened = (*self.pending, *self.retrying, *self.armed, *self.dead)
        found: set[tuple[tuple[str, ...], str | None]] = {
            (() if each.node.kind == "batch" else each.node.emits, each.node.id) for each in opened
        }
        if self.outcome is None:
            for join in self.hoping:
                for name in self._waiting[join]:
                    if name in self._coming:
                        found.add(((name,), GRAPH.event[name].emitted_by[0]))
                    elif name in self._after_answers:
                        found |= {((answer,), None) for answer in self._answers}
            if any(each.node.service in {"desk", "approvals"} for each in self.armed):
                found |= {((answer,), None) for answer in self._answers}
        return found

    # --- ledger -------------------------------------------------------------------------------------------------------

    @cached_property
    def failed_for_good(self) -> bool:
        """Whether nothing good can come of it."""
        is_trip = self.play.first.type == "TripRequested"
        return self.outcome == "failed" or (self.outcome is None and not is_trip and bool(self.types & FAILURES))

    @cached_property
    def ledger(self) -> dict[str, tuple[str | None, str]]:
        """By the id of the event, what undoes it and how far that is."""
        found: dict[str, tuple[str | None, str]] = {}
        undoing = [node for node in GRAPH.handlers if isinstance(node.rule, Undoing)]
        discarded = {letter.node.id for letter in self.play.letters if letter.settled == "discarded"}
        for event in self.play.events:
            for node in undoing:
                rule = node.rule
                if isinstance(rule, Undoing) and event.handler == rule.step and event.type in rule.events:
                    is_asked = self.types & set(node.consumes)
                    left = "impossible" if node.id in discarded else "owed"
                    found[event.id] = node.id, self.play.undone.get(event.id, left if is_asked else "kept")
        for event in self.play.events if self.failed_for_good else ():
            is_effect = event.type not in FAILURES and event.type not in ENDS
            if event.handler and event.handler.partition(".")[0] in _DEAF and is_effect:
                found[event.id] = None, "uncovered"
        return found

    # --- the state ----------------------------------------------------------------------------------------------------

    @cached_property
    def _failing(self) -> list[Open]:
        leaves = {
            node.id
            for node in GRAPH.handlers
            if node.kind != "compensation" and (not node.emits or node.kind == "batch")
        }
        return [each for each in self.dead if self.outcome is None or each.node.id not in leaves]

    @cached_property
    def is_at_rest(self) -> bool:
        """Whether nobody owes anything."""
        return not (self.pending or self.retrying or self.armed)

    @cached_property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.is_at_rest and self.state in {"conflict", "completed", "compensated", "partially-compensated"}

    @cached_property
    def state(self) -> State:
        """The first that applies."""
        return next(state for state in _ORDER if self._applies(state))

    def _applies(self, state: State) -> bool:
        lines = {status for _, status in self.ledger.values()}
        is_silent = self.outcome is None and self.is_at_rest and not self.hoping
        begins = self.play.first.type
        rules: dict[State, Callable[[], bool]] = {
            "conflict": lambda: self.outcome == "conflict",
            "diverged": lambda: self.play.diverged,
            "failed": lambda: bool(self._failing),
            "truncated": lambda: self.loses_start,
            "partially-compensated": lambda: "impossible" in lines,
            "compensating": lambda: "owed" in lines,
            "compensated": lambda: (
                self.is_at_rest and (self.outcome == "failed" or (is_silent and self.failed_for_good))
            ),
            "completed": lambda: (
                (self.outcome == "completed" and self.is_at_rest)
                or (is_silent and begins not in {"TripRequested", "ClaimFiled"})
            ),
            "late": lambda: any(self._is_late(each) for each in (*self.armed, *self.pending)),
            "running": lambda: bool(self.pending) or any((each.due_ms or 0) <= NOW_MS for each in self.retrying),
            "waiting": lambda: not self.is_at_rest or (self.outcome is None and bool(self.hoping)),
            "stuck": lambda: True,
        }
        return rules[state]()

    @staticmethod
    def _is_late(each: Open) -> bool:
        return isinstance(each.node.rule, Timing) and each.due_ms is not None and each.due_ms + LATE_MS <= NOW_MS

    @cached_property
    def reason(self) -> re.Pattern[str]:
        """What the reason has to say."""
        return re.compile(_REASONS[self.state](self))

    def __repr__(self) -> str:
        return f"Truth({self.saga}: {self.state}, {[event.type for event in self.play.events]})"


def _any(opened: list[Open], says: str) -> str:
    return "|".join(says.format(h=re.escape(each.node.id), t=each.event.type) for each in opened)


def _undoing(status: str) -> Callable[[Truth], str]:
    def pattern(truth: Truth) -> str:
        lines = [(event, *truth.ledger[event.id]) for event in truth.play.events if event.id in truth.ledger]
        return "|".join(f"{event.type}.*{re.escape(node or '')}" for event, node, is_ in lines if is_ == status)

    return pattern


def _ended(truth: Truth) -> str:
    if truth.outcome:
        name = "TripFailed" if truth.outcome == "failed" else "TripConfirmed|ClaimPaid"
        return f"{truth.outcome} with ({name}) from "
    return (
        "failed with (ClaimRejected|ReviewObjected) from "
        if truth.state == "compensated"
        else "branches have ended|no declared handler takes"
    )


def _running(truth: Truth) -> str:
    now = [each for each in truth.retrying if (each.due_ms or 0) <= NOW_MS]
    said = [_any(truth.pending, "{h} has not handled {t}"), _any(now, "{h} is (to be )?called again with {t}")]
    return "|".join(filter(None, said))


def _waiting(truth: Truth) -> str:
    later = [each for each in truth.retrying if (each.due_ms or 0) > NOW_MS]
    if later:
        return _any(later, "{h} is called again with {t} at ")
    return "waiting for ApprovalGiven from outside" if truth._answers and truth.outcome is None else "waiting for .*"


_REASONS: dict[State, Callable[[Truth], str]] = {
    "conflict": lambda _: "two outcomes: .*TripConfirmed from .* and TripFailed from",
    "diverged": lambda _: "(TripVanished|RoomsCancelled|LegacyNoted) from .* is not declared",
    "failed": lambda truth: _any(truth._failing, "{h} has given up on {t}.*dead letter [0-9a-f]+ is open"),
    "truncated": lambda _: "no longer in the log",
    "partially-compensated": _undoing("impossible"),
    "compensating": _undoing("owed"),
    "compensated": _ended,
    "completed": _ended,
    "late": lambda truth: _any(
        [each for each in (*truth.armed, *truth.pending) if truth._is_late(each)], "{h} was to be called with {t} at"
    ),
    "running": _running,
    "waiting": _waiting,
    "stuck": lambda truth: "it ended with|nobody will emit any more",
}


def truths(seed: int, count: int, now_ms: int = NOW_MS) -> Iterator[Truth]:
    """So many sagas, different for each seed, as they are at this moment; all states occur in a few hundred."""
    chance = random.Random(seed)
    for number in range(count):
        yield _truth(chance, seed, number, now_ms)


def _truth(chance: random.Random, seed: int, number: int, now_ms: int) -> Truth:
    ago = chance.choice([chance.randint(0, 3_000), chance.randint(0, 15 * _MINUTE), chance.randint(15, 600) * _MINUTE])
    start_ms = now_ms - ago
    begins = chance.choices(["TripRequested", "ClaimFiled", "ReviewWritten", "SomethingElse"], [70, 18, 10, 2])[0]
    bits = f"{chance.getrandbits(72):018x}"
    name = f"{start_ms:012x}"
    name = f"{name[:8]}-{name[8:]}-7{bits[:3]}-8{bits[3:6]}-{bits[6:18]}"
    form = chance.choices(["own", "bare", "structured"], [90, 5, 5])[0]
    play = Play(name, begins, form, start_ms, now_ms, _temper(chance, start_ms), chance)
    told = {each.of for each in (*play.agains, *play.letters)}
    loses = play.first not in told and len(play.events) > 1 and chance.random() < 0.04
    return Truth(play, loses_start=loses)


def _temper(chance: random.Random, start_ms: int) -> Temper:
    kind = chance.choice(["good", "good", "good", "refusing", "breaking", "down", "slow", "blind", "stray"])
    temper = Temper(approves_ms=chance.choice([500, 5_000, 150_000, 400_000]), refuses=0.05, silent=0.1, breaks=0.02)
    if kind == "refusing":
        temper.refuses, temper.silent = 0.5, 0.4
    elif kind == "breaking":
        temper.breaks, temper.repairs = 0.25, chance.choice([0.3, 1.0])
    elif kind == "down":
        temper.down = (
            chance.choice(["desk", "flights", "hotels", "cars", "approvals", "mail", "claims"]),
            start_ms + (chance.choice([0, 200, 3_000, 300_000])),
        )
    elif kind == "slow":
        temper.approves_ms = None
    elif kind == "blind":
        temper.blind, temper.refuses, temper.breaks = True, chance.choice([0.0, 0.3]), 0.0
        temper.silent, temper.approves_ms = 0.0, chance.randint(599_900, 600_300)
    elif kind == "stray":
        temper.strays = chance.choice(["unknown type", "undeclared", "foreign"])
    return temper
