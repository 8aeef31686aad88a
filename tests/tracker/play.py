"""One saga played forward over `tests.tracker.flows`: who reads what when, what each handler does, what becomes of failures.

The play decides, writes down what the runtime would write, and remembers what it has decided. What has not happened by
the end is open. It shares no code with the fold.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from choreo.graph import HandlerNode, Joining, Timing, Undoing
from choreo.wire.ids import derive_event_id
from tests.tracker.flows import CHOREOGRAPHY

GRAPH = CHOREOGRAPHY.graph
TAKERS: dict[str, list[HandlerNode]] = defaultdict(list)
"""Who is called with an event, or looks at it."""
for _node in GRAPH.handlers:
    for _name in (*_node.consumes, *_node.stopped_by):
        TAKERS[_name].append(_node)
FAILURES = frozenset(event.name for event in GRAPH.events if event.failure)
ENDS = {event.name: event.ends for event in GRAPH.events if event.ends}
TOPIC = {event.name: event.topics[0] for event in GRAPH.events}


@dataclass(eq=False)
class Happened:
    """An event of the play."""

    id: str
    type: str
    source: str
    cause: Happened | None
    at_ms: int
    handler: str | None = None
    compensates: str | None = None
    topic: str = ""
    form: str = "own"
    """How it is written: `own` as the runtime does, `bare` without a correlation id, `structured` as a CloudEvent."""
    written_ms: int = 0
    read_by: set[str] = field(default_factory=set)
    copies: int = 1


@dataclass(eq=False)
class Again:
    """A record of a retry topic."""

    node: HandlerNode
    of: Happened
    attempt: int
    due_ms: int
    first_ms: int
    redrives: int = 0
    discard: bool = False
    letter: Letter | None = None
    number: int = 1
    read: bool = False


@dataclass(eq=False)
class Letter:
    """A dead letter, and what was done about it."""

    node: HandlerNode
    of: Happened
    attempts: int
    first_ms: int
    at_ms: int
    redrives: int
    due_ms: int | None
    number: int = 1
    settled: str = ""
    settled_ms: int = 0


@dataclass
class Temper:
    """What kind of saga it is going to be.

    Attributes:
        refuses: how likely a handler emits a failure where it may.
        silent: how likely it emits nothing where it may.
        breaks: how likely it fails.
        down: the group that stops reading, and when.
        approves_ms: after how long somebody outside approves; None: never.
        blind: whether the desk forgets that it has decided.
        strays: what is emitted that nobody has declared.
    """

    refuses: float = 0.1
    silent: float = 0.15
    breaks: float = 0.05
    repairs: float = 0.6
    down: tuple[str, int] | None = None
    approves_ms: int | None = 2_000
    blind: bool = False
    strays: str = ""


class Play:
    """A saga from its first event to the end of what has happened.

    Attributes:
        events, agains, letters: what was written.
        diverged: whether something was emitted that nobody has declared.
    """

    def __init__(
        self, name: str, begins: str, form: str, start_ms: int, end_ms: int, temper: Temper, chance: random.Random
    ):
        self.name, self.temper, self.chance = name, temper, chance
        self.end_ms = end_ms
        self.events: list[Happened] = []
        self.agains: list[Again] = []
        self.letters: list[Letter] = []
        self.diverged = False
        self.arrived: dict[str, dict[str, list[Happened]]] = defaultdict(dict)
        self.fired: set[str] = set()
        self.timers: dict[tuple[str, str], tuple[HandlerNode, Happened, int]] = {}
        self.effects: dict[str, list[list[Happened]]] = defaultdict(list)
        self.failed: dict[str, Happened] = {}
        self.undone: dict[str, str] = {}
        self._decided = False
        self._slowness = chance.uniform(0.5, 3.0)
        self._queue: list[tuple[int, int, Callable[[int], None]]] = []
        self._number = itertools.count()
        source = {"own": "portal", "bare": "portal", "structured": "/legacy/portal"}[form]
        self.first = Happened(name, begins, source, None, start_ms, topic=TOPIC.get(begins, "trips"), form=form)
        self._at(start_ms, lambda now: self._write(self.first))
        if begins == "TripRequested" and temper.approves_ms is not None:
            self._at(start_ms + temper.approves_ms, self._approve)
        while self._queue and self._queue[0][0] <= end_ms:
            now, _, act = heapq.heappop(self._queue)
            act(now)

    def _at(self, when: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._number), act))

    def _approve(self, now: int) -> None:
        given = self._id(self.name, "outside", "approval", 0)
        self._write(Happened(given, "ApprovalGiven", "portal", None, now, topic=TOPIC["ApprovalGiven"]))

    @staticmethod
    def _id(cause: str, service: str, source: str, ordinal: int) -> str:
        return derive_event_id(cause, service, source, ordinal, time_ms=0)

    # --- writing and reading ------------------------------------------------------------------------------------------

    def _write(self, event: Happened) -> None:
        event.written_ms = event.at_ms
        self.events.append(event)
        by_group: dict[str, list[HandlerNode]] = defaultdict(list)
        for node in TAKERS.get(event.type, ()):
            by_group[node.service].append(node)
        for number, (group, nodes) in enumerate(sorted(by_group.items())):
            when = event.at_ms + round(20 * self._slowness * (number + 1))
            if not self._is_down(group, when):
                self._at(when, lambda now, group=group, nodes=nodes: self._read(event, group, nodes, now))

    def _is_down(self, group: str, when: int) -> bool:
        down = self.temper.down
        return down is not None and down[0] == group and when >= down[1]

    def _read(self, event: Happened, group: str, nodes: list[HandlerNode], now: int) -> None:
        event.read_by.add(group)
        for node in nodes:
            self._take(node, event, now, attempt=0, first_ms=now)

    def _take(
        self, node: HandlerNode, event: Happened, now: int, *, attempt: int, first_ms: int, redrives: int = 0
    ) -> None:
        """A handler is given an event."""
        call = Call(event, attempt, first_ms, redrives)
        rule = node.rule
        if isinstance(rule, Undoing):
            self._compensate(node, rule, call, now)
        elif isinstance(rule, Joining):
            self._join(node, rule, call, now)
        elif isinstance(rule, Timing):
            self._time(node, rule, call, now)
        elif self._may_start(node):
            self._call(node, call, now)

    def _may_start(self, node: HandlerNode) -> bool:
        return node.id not in self.failed

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, node: HandlerNode, call: Call, now: int, scope: str = "", undoes: Happened | None = None) -> bool:
        """Call a handler; False if it failed."""
        if self.chance.random() < self.temper.breaks:
            self._fail(node, call, now)
            return False
        emitted = []
        for ordinal, name in enumerate(self._answer(node)):
            emitted.append(self._emit(node, call.event, name, ordinal, now, scope, undoes))
        if emitted and any(isinstance(each.rule, Undoing) and each.rule.step == node.id for each in GRAPH.handlers):
            done = [each for each in emitted if each.type not in FAILURES]
            if done:
                self.effects[node.id].append(done)
        if self.temper.strays and node.kind != "batch" and self.chance.random() < 0.5:
            self._stray(node, call.event, now)
        return True

    def _emit(
        self, node: HandlerNode, cause: Happened, name: str, ordinal: int, now: int, scope: str, undoes: Happened | None
    ) -> Happened:
        event = Happened(
            self._id(cause.id, node.service, node.name + scope, ordinal), name, node.service, cause, now, node.id,
            undoes.id if undoes else None, TOPIC[name],
        )  # fmt: skip
        self._write(event)
        return event

    def _stray(self, node: HandlerNode, cause: Happened, now: int) -> None:
        """Something that nothing declared explains."""
        kind, self.temper.strays = self.temper.strays, ""
        self.diverged = True
        told = {
            "unknown type": ("TripVanished", node.service),
            "undeclared": ("RoomsCancelled", "mail"),
            "foreign": ("LegacyNoted", "/legacy/audit"),
        }[kind]
        stray = self._id(cause.id, told[1], "stray", 0)
        self._write(Happened(stray, told[0], told[1], cause, now, topic=TOPIC.get(told[0], "trips")))

    def _answer(self, node: HandlerNode) -> list[str]:
        """What a handler returns."""
        chance, temper = self.chance, self.temper
        if node.service == "desk":
            return self._decide(node)
        bad = [name for name in node.emits if name in FAILURES]
        good = [name for name in node.emits if name not in FAILURES]
        if node.several:
            return [good[0]] * (0 if chance.random() < temper.silent / 3 else chance.choice([1, 2, 2, 3]))
        if bad and chance.random() < temper.refuses:
            return bad[:1]
        if not good or (node.may_emit_nothing and chance.random() < temper.silent):
            return []
        return good[:1]

    def _decide(self, node: HandlerNode) -> list[str]:
        if self._decided and node.name != "expire" and not self.temper.blind:
            return []
        self._decided = True
        return ["TripConfirmed" if node.name == "confirm" else "TripFailed"]

    # --- failing ------------------------------------------------------------------------------------------------------

    def _fail(self, node: HandlerNode, call: Call, now: int) -> None:
        """A call has failed: to the retry topic, or for good."""
        attempts = call.attempt + 1
        first_ms = call.first_ms
        is_reminder = isinstance(node.rule, Timing) and node.rule.times > 1
        if attempts < 3 and not call.redrives and not is_reminder and self.chance.random() < 0.6:
            due_ms = now + self.chance.randint(1_000, 60_000)
            self._send(Again(node, call.event, attempts, due_ms, first_ms), due_ms)
            return
        letter = Letter(node, call.event, attempts, first_ms, now, call.redrives, call.due_ms, call.number)
        self.letters.append(letter)
        if self.chance.random() < self.temper.repairs:
            how = self.chance.choice(["redriven", "redriven", "discarded"])
            self._at(now + self.chance.randint(10_000, 600_000), lambda at: self._settle(letter, how, at))

    def _settle(self, letter: Letter, how: str, now: int) -> None:
        letter.settled, letter.settled_ms = how, now
        if how == "redriven" or letter.redrives:
            is_discard = how == "discarded"
            again = Again(
                letter.node, letter.of, 0, 0, letter.first_ms, letter.redrives + 1, is_discard, letter, letter.number
            )
            self._send(again, now + 50)

    def _send(self, again: Again, when: int) -> None:
        self.agains.append(again)
        if not self._is_down(again.node.service, when):
            self._at(when, lambda now: self._return(again, now))

    def _return(self, again: Again, now: int) -> None:
        again.read = True
        if again.discard:
            return
        first_ms = again.first_ms
        if isinstance(again.node.rule, Timing):
            self._ring(again.node, again.of, now, again=again)
        else:
            self._take(again.node, again.of, now, attempt=again.attempt, first_ms=first_ms, redrives=again.redrives)

    # --- joins --------------------------------------------------------------------------------------------------------

    def _join(self, node: HandlerNode, rule: Joining, call: Call, now: int) -> None:
        have, event = self.arrived[node.id], call.event
        if node.id in self.fired:
            return
        if event.type in node.stopped_by:
            self.fired.add(node.id)
            return
        if event.type in have and event.type != rule.gathers:
            return
        mine = {**have, event.type: [*have.get(event.type, []), event]}
        is_there = len(mine.get(rule.gathers, ())) >= (rule.count or 0) if rule.gathers else len(mine) >= rule.need
        if not is_there:
            self.arrived[node.id] = mine
        elif self._call(node, call, now):
            self.fired.add(node.id)
            self.arrived[node.id] = mine

    # --- deadlines ----------------------------------------------------------------------------------------------------

    def _time(self, node: HandlerNode, rule: Timing, call: Call, now: int) -> None:
        if call.event.type in node.consumes:
            self._wind(node, rule, call.event, 1)

    def _wind(self, node: HandlerNode, rule: Timing, event: Happened, number: int) -> None:
        due_ms = event.at_ms + round(rule.within * 1000) + (number - 1) * round(rule.every * 1000)
        self.timers[node.id, event.id] = node, event, due_ms
        when = due_ms + round(rule.grace * 1000) + self.chance.randint(0, 900)
        if not self._is_down(node.service, when):
            self._at(when, lambda now: self._go_off(node, rule, event, number, due_ms, now))

    def is_stopped(self, node: HandlerNode, due_ms: int) -> bool:
        """Whether something was produced in time that stops a deadline."""
        return any(event.type in node.stopped_by and event.at_ms <= due_ms for event in self.events)

    def _go_off(self, node: HandlerNode, rule: Timing, event: Happened, number: int, due_ms: int, now: int) -> None:
        if self.is_stopped(node, due_ms):
            return
        scope = f"#{number}" if number > 1 else ""
        went_well = self._call(node, Call(event, 0, now, 0, due_ms, number), now, scope)
        if not (went_well and node.may_emit_nothing):  # else nobody can see that it was called
            del self.timers[node.id, event.id]
        if number < rule.times:
            self._wind(node, rule, event, number + 1)

    def _ring(self, node: HandlerNode, event: Happened, now: int, again: Again) -> None:
        """A call of a deadline that failed is made once more, unless reminders have followed it."""
        if isinstance(node.rule, Timing) and again.number == node.rule.times:
            scope = f"#{again.number}" if again.number > 1 else ""
            call = Call(event, again.attempt, again.first_ms, again.redrives, None, again.number)
            self._call(node, call, now, scope)

    # --- compensations ------------------------------------------------------------------------------------------------

    def _compensate(self, node: HandlerNode, rule: Undoing, call: Call, now: int) -> None:
        if self.failed.setdefault(rule.step, call.event) is not call.event:
            return
        for run in reversed(self.effects[rule.step]):
            mine = [each for each in run if each.type in rule.events and each.id not in self.undone]
            if not mine:
                continue
            before = len(self.events)
            if not self._call(node, call, now, f"/{mine[0].id}", mine[0]):
                return
            stays = any(each.type in FAILURES for each in self.events[before:])
            self.undone |= {each.id: "impossible" if stays else "done" for each in mine}


@dataclass
class Call:
    """One call of a handler."""

    event: Happened
    attempt: int
    first_ms: int
    redrives: int
    due_ms: int | None = None
    number: int = 1
