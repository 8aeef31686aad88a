"""The verdict over a round's evidence. Pure.

Every published event must have its whole tree: each reaction took effect once or ended as one dead letter, or waits
behind a key that a dead letter holds. Where a service has no store, the events it emitted are its effects.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.chaos.evidence import Effect, Evidence, Letter, Seen
from tests.chaos.world import REACTIONS, REFUSALS, Reaction


class Finding(NamedTuple):
    """One violation.

    Attributes:
        kind: `lost` (also: not done yet), `doubled`, `order`, `orphan` (an effect whose cause does not stand in the log, or an
            event whose cause took no effect), `letter`, `rest` or `calls`.
    """

    kind: str
    what: str


class Verdict(NamedTuple):
    """What was found, and how much was looked at."""

    findings: list[Finding]
    checked: Counter[str]

    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.findings}

    def text(self, shown: int = 12) -> str:
        """The first findings of each kind, in lines."""
        lines = []
        for kind, count in Counter(finding.kind for finding in self.findings).items():
            some = [finding.what for finding in self.findings if finding.kind == kind][:shown]
            lines += [f"{kind}: {count}", *(f"  {what}" for what in some)]
        return "\n".join(lines) or "no findings"


class Checker:
    """Looks at one round.

    Args:
        published: what is known to be in the log, by event id.
        garbage: how many records were published that nobody can read, and how many of which that is not known.
        mended: whether all dead letters have been redriven or discarded.
    """

    def __init__(
        self,
        evidence: Evidence,
        published: Mapping[str, Seen],
        garbage: tuple[int, int] = (0, 0),
        *,
        mended: bool = False,
    ) -> None:
        self._evidence = evidence
        self._published = published
        self._garbage = garbage
        self._mended = mended
        self._findings: list[Finding] = []
        self._checked: Counter[str] = Counter()
        self._copies = Counter(seen.event_id for events in evidence.events.values() for seen in events)
        self._events = {seen.event_id: seen for events in evidence.events.values() for seen in events}
        self._children: dict[tuple[str | None, str], set[str]] = defaultdict(set)
        for seen in self._events.values():
            self._children[seen.cause, seen.type].add(seen.event_id)
        self._rows = {
            service: Counter((effect.event_id, effect.handler) for effect in rest.effects)
            for service, rest in evidence.rests.items()
        }
        letters = {letter.id: letter for letter in evidence.letters}
        self._letters: dict[tuple[str, str, str], list[Letter]] = defaultdict(list)
        for letter in letters.values():
            self._letters[letter.service, letter.handler, letter.event_id].append(letter)
        self._behind = {(s, *pair) for s, rest in evidence.rests.items() for pair in rest.behind}

    def verdict(self) -> Verdict:
        """Check everything."""
        for event_id in self._published.keys() - self._events.keys():
            self._find("lost", f"the published event {event_id} is not in the log")
        for seen in self._events.values():
            for reaction in REACTIONS[seen.type]:
                self._reaction(seen, reaction)
            self._origin(seen)
        self._effects_have_causes()
        self._order_in_log()
        self._order_in_stores()
        self._dead_letters()
        self._stores_at_rest()
        copies = sum(self._copies.values()) - len(self._copies)
        self._checked.update({"events": len(self._events), "copies": copies, "retried": self._evidence.retried})
        self._checked["roots"] = len(self._published)
        return Verdict(self._findings, self._checked)

    def _find(self, kind: str, what: str) -> None:
        self._findings.append(Finding(kind, what))

    # --- the tree -------------------------------------------------------------------------------------------------

    def _reaction(self, seen: Seen, reaction: Reaction) -> None:
        """One handler, one event: exactly one outcome, and what follows from it."""
        name = f"{reaction.service}.{reaction.handler} of {_told(seen)}"
        dead = [
            letter
            for letter in self._letters.get((reaction.service, reaction.handler, seen.event_id), ())
            if letter.id not in self._evidence.resolved or letter.id in self._evidence.discarded
        ]
        has_store = reaction.service in self._rows
        if not has_store and not reaction.emits:
            return  # nothing to see
        done = (
            self._rows[reaction.service][seen.event_id, reaction.handler]
            if has_store
            else int(any(self._children.get((seen.event_id, emitted)) for emitted in reaction.emits))
        )
        self._checked["reactions"] += 1
        if done + len(dead) > 1:
            self._find("doubled", f"{name}: {done} effects, {len(dead)} dead letters")
        if not done and not dead:
            if (reaction.service, reaction.handler, seen.event_id) in self._behind:
                self._checked["waiting behind dead letters"] += 1
            else:
                self._find("lost", f"{name}: no effect and no dead letter")
        if done and not dead:
            self._emitted(seen, reaction, name, exact=not has_store)

    def _emitted(self, seen: Seen, reaction: Reaction, name: str, *, exact: bool) -> None:
        for emitted in reaction.emits:
            ids = self._children.get((seen.event_id, emitted), set())
            if not ids:
                self._find("lost", f"{name}: it emitted no {emitted}")
            if len(ids) > 1:
                self._find("doubled", f"{name}: it emitted {len(ids)} different {emitted}")
            for event_id in ids if exact else ():
                if self._copies[event_id] != self._copies[seen.event_id]:
                    copies = f"{self._copies[event_id]} for {self._copies[seen.event_id]}"
                    self._find("doubled", f"{name}: {copies} of its cause, in committed transactions")

    def _origin(self, seen: Seen) -> None:
        """An event in the log was published, or its cause took effect."""
        if seen.type == "Placed":
            if seen.event_id not in self._published:
                self._find("orphan", f"nobody published {_told(seen)}")
            return
        cause = self._events.get(seen.cause or "")
        if cause is None:
            self._find("orphan", f"the cause of {_told(seen)} is not in the log")
            return
        by = next(r for r in REACTIONS[cause.type] if seen.type in r.emits)
        if by.service in self._rows and not self._rows[by.service][cause.event_id, by.handler]:
            self._find("orphan", f"{_told(seen)} was emitted, but {by.service}.{by.handler} took no effect")

    def _effects_have_causes(self) -> None:
        for service, rows in self._rows.items():
            self._checked["effects"] += sum(rows.values())
            for event_id, handler in rows:
                if event_id not in self._events:
                    self._find("orphan", f"{service}.{handler} took effect for {event_id}, which is not in the log")

    # --- order ----------------------------------------------------------------------------------------------------

    def _order_in_log(self) -> None:
        """The first copies of a key's events must come in the order of their numbers."""
        for topic, events in self._evidence.events.items():
            first = {seen.event_id: seen for seen in reversed(events)}
            self._ascending(topic, (seen for seen in events if first.pop(seen.event_id, None)))
        for seen in self._evidence.events.get("chaos.booked", ()):
            if "ledger" in self._rows and seen.n != seen.seq:
                self._find("order", f"{_told(seen)} is booking number {seen.n} of its key")

    def _order_in_stores(self) -> None:
        for service, rest in self._evidence.rests.items():
            ordered = {reaction.handler for each in REACTIONS.values() for reaction in each if reaction.ordered}
            for handler in ordered:
                for kind in REACTIONS:
                    rows = [e for e in rest.effects if e.handler == handler and e.type == kind]
                    first = {effect.event_id: effect for effect in reversed(rows)}
                    self._ascending(f"{service}.{handler}", (e for e in rows if first.pop(e.event_id, None)))

    def _ascending(self, where: str, numbered: Iterable[Seen | Effect]) -> None:
        last: dict[str, Seen | Effect] = {}
        for each in numbered:
            self._checked["places in order"] += 1
            before = last.setdefault(each.key, each)
            if each.seq < before.seq:
                places = " ".join(f"({one.place})" if isinstance(one, Seen) else "" for one in (each, before))
                self._find("order", f"{where}, key {each.key}: {each.seq} comes after {before.seq} {places}".rstrip())
            else:
                last[each.key] = each

    # --- dead letters and stores ----------------------------------------------------------------------------------

    def _dead_letters(self) -> None:
        """Each has a reason, and is one that the event's fate foretold."""
        places: Counter[str] = Counter()
        for (service, handler, event_id), letters in self._letters.items():
            for letter in letters:
                self._checked["dead letters"] += 1
                name = f"dead letter of {service}.{handler} for {event_id or letter.place}: {letter.kind}"
                if not letter.id or not letter.reason:
                    self._find("letter", f"{name}, without a reason")
                if self._mended and letter.id not in self._evidence.resolved:
                    self._find("letter", f"{name} is open, though all were resolved")
                if letter.kind == "undecodable":
                    places[letter.place] += 1
                elif event_id not in self._events:
                    self._find("orphan", f"{name}, not in the log")
                elif (handler, self._events[event_id].fate) not in REFUSALS:
                    self._find("letter", f"{name} ({letter.reason}), though its fate is {self._events[event_id].fate}")
        known, unsure = self._garbage
        if not known <= len(places) <= known + unsure:
            kind = "lost" if len(places) < known else "letter"
            self._find(kind, f"{known} unreadable records (maybe {unsure} more), {len(places)} dead letters of such")

    def _stores_at_rest(self) -> None:
        held = {
            (letter.service, letter.handler, letter.event_id)
            for letter in self._evidence.letters
            if letter.parked and letter.id not in self._evidence.resolved
        }
        for service, rest in self._evidence.rests.items():
            if rest.outbox:
                self._find("rest", f"{service}: {rest.outbox} outbox rows are left")
            for handler, key, head in rest.parked:
                self._checked["parked keys"] += 1
                if (service, handler, head) not in held:
                    self._find("rest", f"{service}.{handler}: key {key} is parked behind {head}, no open dead letter")
        parked = {
            (service, handler, head)
            for service, rest in self._evidence.rests.items()
            for handler, _, head in rest.parked
        }
        for service, handler, head in held - parked:
            self._find("rest", f"{service}.{handler}: the key of the dead letter of {head} is not parked")


def _told(seen: Seen) -> str:
    return f"{seen.type} {seen.key}/{seen.seq} ({seen.fate}, {seen.event_id})"
