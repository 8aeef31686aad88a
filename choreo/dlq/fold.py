"""What is known about dead letters: the fold of their topics, what one may ask it, and groups. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from choreo.dlq.letters import DeadLetter, Place, Resolution, read
from choreo.errors import ChoreoError
from choreo.log.port import Record, TopicPartition

State = Literal["open", "redriven", "discarded"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those that all of these fit; what is not given fits any.

    Attributes:
        service: whose they are; those of other systems fit any service.
        ids, fingerprint: their first characters are enough; of ids, if only one dead letter begins so.
        type_name: the event's type.
        key: as text.
        since_ms: failed at this time (milliseconds since the epoch) or later.
    """

    ids: tuple[str, ...] = ()
    service: str | None = None
    fingerprint: str = ""
    handler: str | None = None
    type_name: str | None = None
    key: str | None = None
    since_ms: int = 0
    state: State | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether this dead letter is meant, whatever its state."""
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (self.service is None or letter.service in {"", self.service})
            and letter.fingerprint.startswith(self.fingerprint)
            and self.handler in {None, letter.handler}
            and self.type_name in {None, letter.type_name}
            and self.key in {None, letter.key}
            and letter.failed_ms >= self.since_ms
        )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dead letters of one service and fingerprint; times in milliseconds since the epoch.

    Attributes:
        example: the newest of them, of the open ones if there are any.
        failed_again: how many of the redriven ones came back.
        parked: how many keys wait for an open one.
        first_ms: when the oldest failed first, of the open ones if there are any.
    """

    example: DeadLetter
    open: int
    redriven: int
    failed_again: int
    discarded: int
    parked: int
    first_ms: int
    last_ms: int


class Fold:
    """Dead letters and what was done about them; the records may come in any order.

    Args:
        keep: whose values, headers and traces are kept; without them a long topic fits into memory.

    Attributes:
        letters: by id. A copy of one (publishing may repeat itself) changes nothing.
        foreign: how many records no header explains.
    """

    def __init__(self, keep: Callable[[DeadLetter], bool] = lambda _: False) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self.foreign = 0
        self._keep = keep
        self._resolutions: dict[str, list[Resolution]] = defaultdict(list)
        self._back: set[tuple[str, str, Place, int]] = set()

    def add(self, record: Record) -> None:
        """Take a record of a dead-letter topic in."""
        found = read(record)
        if isinstance(found, Resolution):
            self._resolutions[found.of].append(found)
        elif found is None:
            self.foreign += 1
        elif found.id not in self.letters or found.failed_ms > self.letters[found.id].failed_ms:
            if not self._keep(found):
                bare = found.record._replace(value=None, headers=[])
                found = replace(found, record=bare, trace="", missing=("value", "headers"))
            self.letters[found.id] = found
            if found.redrives:  # it may have come back from all handlers, or from another system's dead letter
                back = found.place, found.redrives
                self._back |= {(found.service, found.handler, *back), (found.service, "", *back), ("", "", *back)}

    def state(self, letter: DeadLetter) -> State:
        """Open, or how it was resolved last. A store that was lost lets a record fail anew, with the same id."""
        done = [one for one in self._resolutions.get(letter.id, ()) if one.failed_ms in {None, letter.failed_ms}]
        return max(done, key=lambda one: one.at_ms).kind if done else "open"

    def failed_again(self, letter: DeadLetter) -> bool:
        """Whether it was redriven and came back."""
        return (letter.service, letter.handler, letter.place, letter.redrives + 1) in self._back

    def history(self, letter: DeadLetter) -> list[DeadLetter | Resolution]:
        """The dead letters of the same record and handler with what was done about each, oldest first."""
        told: list[DeadLetter | Resolution] = []
        for one in sorted(self.letters.values(), key=lambda one: one.redrives):
            same_service = one.service == letter.service or not (one.service and letter.service)
            same_handler = one.handler == letter.handler or not (one.handler and letter.handler)
            if one.place == letter.place and same_service and same_handler:
                told += [one, *sorted(self._resolutions.get(one.id, ()), key=lambda done: done.at_ms)]
        return told

    def select(self, chosen: Selection) -> list[DeadLetter]:
        """Those that are meant, oldest first, and those of one key in the order of their originals.

        Raises:
            ChoreoError: an id is that of none, or the beginning of several.
        """
        for given in chosen.ids:
            fit = [given] if given in self.letters else [id_ for id_ in self.letters if id_.startswith(given)]
            if len(fit) != 1:
                what = f"{len(fit)} dead letters begin with {given!r}"
                raise ChoreoError(what, remedy="choreo dlq list --all --state any --json shows their ids")
        meant = filter(chosen.fits, self.letters.values())
        return in_order(letter for letter in meant if chosen.state in {None, self.state(letter)})

    def groups(self, letters: Iterable[DeadLetter]) -> list[Group]:
        """These dead letters by service and fingerprint; the group with the newest failure first."""
        found: dict[tuple[str, str], list[DeadLetter]] = defaultdict(list)
        for letter in letters:
            found[letter.group, letter.fingerprint].append(letter)
        return sorted(map(self._group, found.values()), key=lambda group: -group.last_ms)

    def _group(self, letters: list[DeadLetter]) -> Group:
        states = Counter(map(self.state, letters))
        still_open = [letter for letter in letters if self.state(letter) == "open"]
        return Group(
            example=max(still_open or letters, key=lambda letter: letter.failed_ms),
            open=states["open"],
            redriven=states["redriven"],
            failed_again=sum(self.state(letter) == "redriven" and self.failed_again(letter) for letter in letters),
            discarded=states["discarded"],
            parked=len({(letter.place.topic, letter.record.key) for letter in still_open if letter.parked}),
            first_ms=min(letter.first_failed_ms for letter in still_open or letters),
            last_ms=max(letter.failed_ms for letter in letters),
        )


def in_order(letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """By the time of the first failure; but of one partition, where all records of a key are, as they lie in it."""
    by_time = sorted(letters, key=lambda letter: (letter.first_failed_ms, letter.place))
    lying: dict[TopicPartition, list[DeadLetter]] = defaultdict(list)
    for letter in sorted(by_time, key=lambda letter: letter.place.offset, reverse=True):
        lying[letter.place.of].append(letter)
    return [lying[letter.place.of].pop() for letter in by_time]
