"""What went wrong with an event at a handler, and what has been done about it: from retry records and dead letters. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from choreo.dlq.letters import Place
from choreo.log.port import TopicPartition
from choreo.saga.fold.declared import Declared
from choreo.saga.fold.events import Raw, Sorted
from choreo.saga.model import Surroundings
from choreo.saga.sighting import Again, Letter, Settled

Stand = Literal["dead", "retrying", "discarded", "handled"]


@dataclass(slots=True)
class Trouble:
    """What became of an event at which a handler failed.

    Attributes:
        stand: `dead`: a dead letter is open. `retrying`: it is to be called again. `discarded`: given up. `handled`: called
            again, and it did not fail.
        due_ms: when it is called again; None: as soon as its group reads it.
        letter: the id of its last dead letter; empty if there is none.
        parks: whether later events of its key wait for it.
        failed_ms: when each of its calls failed first: the calls of a deadline are told apart by it.
        last_ms: when it failed or was resolved last.
    """

    stand: Stand
    attempts: int = 0
    due_ms: int | None = None
    error: str = ""
    letter: str = ""
    redrives: int = 0
    parks: bool = False
    failed_ms: tuple[int, ...] = ()
    last_ms: int = 0


@dataclass(slots=True)
class _Chain:
    """One call that failed, with what came after it."""

    agains: list[tuple[Place, Again]] = field(default_factory=list)
    letters: dict[str, Letter] = field(default_factory=dict)


Told = tuple[str, str]
"""A handler's id and an event's."""


def troubles(found: Sorted, declared: Declared, around: Surroundings) -> dict[Told, Trouble]:
    """By handler and event."""
    chains: dict[Told, dict[int, _Chain]] = defaultdict(lambda: defaultdict(_Chain))
    for event_id, place, again in found.agains:
        for handler in _meant(again.handler, found.events[event_id], again.of, declared):
            call = again.first_failed_ms if _is_called_often(handler, declared) else 0
            chains[handler, event_id][call].agains.append((place, again))
    for event_id, letter in found.letters:
        for handler in _meant(letter.handler, found.events[event_id], letter.of, declared):
            call = letter.first_failed_ms if _is_called_often(handler, declared) else 0
            letters = chains[handler, event_id][call].letters
            other = letters.get(letter.id)
            if other is None or _newer(letter) > _newer(other):
                letters[letter.id] = letter
    return {
        told: _together([_judged(chain, found.settled, around) for _, chain in sorted(calls.items())])
        for told, calls in chains.items()
    }


def _newer(letter: Letter) -> tuple[int, ...]:
    return letter.failed_ms, letter.attempts, letter.first_failed_ms


def _meant(handler: str, raw: Raw, of: Place, declared: Declared) -> Iterable[str]:
    """Who is meant: where no single handler is named, all of the service that take the event."""
    if not handler.endswith("."):
        return (handler,)
    takers = declared.takers.get((raw.seen.type_name, of.topic), ())
    return [taker.id for taker in takers if taker.service == handler[:-1]] or (handler,)


def _is_called_often(handler: str, declared: Declared) -> bool:
    node = declared.handler.get(handler)
    return node is not None and node.kind == "deadline"


def _judged(chain: _Chain, settled: Mapping[str, list[Settled]], around: Surroundings) -> Trouble:
    letters = sorted(chain.letters.values(), key=lambda letter: (letter.redrives, *_newer(letter)))
    redriven = max((again.redrives for _, again in chain.agains), default=0)
    last = letters[-1] if letters else None
    done = {letter.id: _settlement(letter, settled.get(letter.id, ())) for letter in letters}
    at = [done_.at_ms for done_ in done.values() if done_] + [letter.failed_ms for letter in letters]
    trouble = Trouble(
        "handled",
        attempts=last.attempts if last else 0,
        error=_error(last) if last else "",
        letter=last.id if last else "",
        redrives=max(redriven, last.redrives if last else 0),
        failed_ms=(_first_failed_ms(chain),),
        last_ms=max([*at, *(again.first_failed_ms for _, again in chain.agains)], default=0),
    )
    still_open = [letter for letter in letters if done[letter.id] is None and letter.redrives >= redriven]
    if still_open:
        dead = still_open[-1]
        trouble.stand, trouble.letter, trouble.error, trouble.parks = "dead", dead.id, _error(dead), dead.parked
    elif last is not None and last.redrives >= redriven:
        how = done[last.id]
        trouble.stand = "discarded" if how is not None and how.how == "discarded" else "retrying"
        trouble.redrives += trouble.stand == "retrying"
    else:
        _look_back(trouble, chain, around)
    return trouble


def _look_back(trouble: Trouble, chain: _Chain, around: Surroundings) -> None:
    """What became of the last record on the retry topic; of copies of it, the first one counts."""
    _, last = max(chain.agains, key=lambda each: _turn(each[1]))
    trouble.attempts = max(trouble.attempts, last.attempt)
    places = [place for place, again in chain.agains if _turn(again) == _turn(last)]
    if last.discard:
        trouble.stand = "discarded"
    elif not any(_is_read(place, around) for place in places):
        trouble.stand, trouble.due_ms, trouble.parks = "retrying", last.due_ms or None, True


def _turn(again: Again) -> tuple[int, int, int]:
    return again.redrives, again.attempt, again.due_ms


def _is_read(place: Place, around: Surroundings) -> bool:
    group = place.topic.partition(".")[2]
    return around.committed.get((group, TopicPartition(*place[:2])), -1) > place.offset


def _settlement(letter: Letter, settled: Iterable[Settled]) -> Settled | None:
    """What was done about a dead letter last. The same id may fail anew, after its service has lost its store."""
    done = [one for one in settled if one.failed_ms in {None, letter.failed_ms}]
    return max(done, key=lambda one: (one.at_ms, one.how), default=None)


def _first_failed_ms(chain: _Chain) -> int:
    return min(
        [
            *(again.first_failed_ms for _, again in chain.agains),
            *(each.first_failed_ms for each in chain.letters.values()),
        ]
    )


def _error(letter: Letter) -> str:
    name = letter.exception.rpartition(".")[2]
    return f"{name}: {letter.message}" if name and letter.message else name or letter.message


_WORST: tuple[Stand, ...] = ("dead", "retrying", "discarded", "handled")


def _together(calls: list[Trouble]) -> Trouble:
    """Of several calls of a deadline, the one that needs most to be seen, with all times."""
    if len(calls) == 1:
        return calls[0]
    shown = min(reversed(calls), key=lambda each: _WORST.index(each.stand))
    shown.failed_ms = tuple(time for each in calls for time in each.failed_ms)
    shown.last_ms = max(each.last_ms for each in calls)
    return shown
