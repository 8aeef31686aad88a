"""The tracker's own store: what it has seen, how each saga is, and how far it has come.

It can be thrown away: the log is the truth, and `choreo tracker rebuild` makes it anew. One conformance suite
(`tests/conformance/tracker`) holds every adapter to the promises written here. All times are ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from choreo.log.port import TopicPartition
from choreo.saga.filters import Filter
from choreo.saga.model import State
from choreo.saga.outcome import Ending
from choreo.saga.sighting import Sighting


class Summary(NamedTuple):
    """A saga as lists show it, and as filters ask about it: see `choreo.saga.filters.FIELDS`.

    Attributes:
        saga: the correlation id.
        events: how many events it has, copies not counted.
        retries: how many calls of handlers were repeated.
        dead_letters: how many dead letters are open.
        owed: how many effects are to be undone.
        services: those that have emitted or handled an event of it, or owe to; sorted.
        handlers: ids of those of whom something is expected; sorted.
        waits_for: the types of events that are expected; sorted.
        until_ms: when the first deadline ends the wait; None if none does.
        error: the last error of a handler, as `Type: message`; empty if there was none.
        changes_ms: when its state may change though nothing comes.
    """

    saga: str
    type: str
    key: str
    state: State
    reason: str
    outcome: Ending | None
    started_ms: int
    updated_ms: int
    ended_ms: int | None
    events: int
    retries: int
    dead_letters: int
    owed: int
    services: tuple[str, ...]
    handlers: tuple[str, ...]
    waits_for: tuple[str, ...]
    until_ms: int | None
    error: str
    parent: str | None
    changes_ms: int | None

    @property
    def duration_ms(self) -> int:
        """From its start to its end, or to what came last."""
        return (self.updated_ms if self.ended_ms is None else self.ended_ms) - self.started_ms


class Wait(NamedTuple):
    """What a saga waits for: that a group commits past a record."""

    group: str
    at: TopicPartition
    offset: int


class Folded(NamedTuple):
    """What was made of a saga's sightings.

    Attributes:
        mark: the `Sightings.mark` that it was made of.
        waits: the commits after which it is to be folded again.
    """

    summary: Summary
    mark: int
    waits: tuple[Wait, ...]


class Sightings(NamedTuple):
    """All that was seen of a saga.

    Attributes:
        mark: says later whether more has been seen since.
    """

    mark: int
    seen: list[Sighting]


class Page(NamedTuple):
    """A part of a list, newest first.

    Attributes:
        after: names the next part; None if there is none. There may be one though this one has fewer rows than asked for:
            a search among very many sagas is broken off after a while, and goes on from there.
    """

    rows: list[Summary]
    after: str | None


class Count(NamedTuple):
    """How many sagas of one type are in one state, with one outcome."""

    type: str
    state: State
    outcome: Ending | None
    sagas: int


class Place(NamedTuple):
    """How far one partition has been read.

    Attributes:
        at_ms: the time of the last record that was read of it; 0 if none was.
    """

    next: int
    at_ms: int


class Commit(NamedTuple):
    """That a group had committed so far when this was noticed."""

    at_ms: int
    offset: int


class TrackerStore(Protocol):
    """Where the tracker keeps what it knows.

    A transaction of the reader (`add`) is exactly once: sightings, progress and the marks of the sagas that are to be
    folded again are written together, and a sighting that is there already changes nothing. What is marked stays so until
    a fold that has seen everything is kept, whoever is killed in between, and however many instances read and fold at once.
    """

    @property
    def url(self) -> str:
        """Its address, without secrets."""

    async def open(self, *, reads_only: bool = False) -> None:
        """Connect; make or upgrade its tables, unless it is only asked.

        Raises:
            ConfigurationError: it cannot be used: it is not there (to be asked only), is something else, or another instance
                uses it, and it is not made for several.
            StoreUnavailableError: passing trouble.
        """

    async def close(self) -> None:
        """Free it. May be repeated."""

    # --- reading the log ------------------------------------------------------------------------------------------

    async def take_over(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Own partitions, and fence whoever owned them; where to read on (0 where nothing was read)."""

    async def add(
        self,
        seen: Sequence[Sighting],
        progress: Mapping[TopicPartition, Place],
        data: Sequence[tuple[str, str, str]] = (),
    ) -> list[str]:
        """Write what was read, with how far that is, in one transaction. Sagas concerned are marked.

        Returns the sagas whose dead letters were settled: only the store knows which these are.

        Args:
            data: values of searchable payload fields: (name, value, saga).

        Raises:
            FencedError: another instance has taken over one of these partitions; nothing is written.
        """

    # --- folding --------------------------------------------------------------------------------------------------

    async def marked(self, limit: int) -> list[str]:
        """Sagas that are to be folded, those marked first first."""

    async def sightings(self, sagas: Iterable[str]) -> dict[str, Sightings]:
        """All that was seen of these sagas, resolutions of their dead letters included; of those of which something was."""

    async def keep(self, folded: Sequence[Folded]) -> None:
        """Keep what was made of sagas, and take their marks away. Of a saga of which more was seen since, nothing is done."""

    async def advance(self, committed: Mapping[tuple[str, TopicPartition], int], at_ms: int) -> list[str]:
        """Note what groups have committed; mark the sagas that have waited for that, and name them."""

    async def due(self, now_ms: int, limit: int) -> list[str]:
        """Mark the sagas whose `changes_ms` has come, and name them."""

    async def waited_for(self) -> dict[str, set[TopicPartition]]:
        """The partitions in which a saga waits for a commit, by group."""

    async def committed(self) -> dict[tuple[str, TopicPartition], int]:
        """What groups had committed when that was noted last."""

    # --- questions ------------------------------------------------------------------------------------------------

    async def page(self, fits: Filter, *, limit: int = 50, after: str | None = None) -> Page:
        """Sagas that fit, newest first (by `started`).

        Args:
            fits: without any `Ago` (`choreo.saga.filters.at_moment`).
            after: the `Page.after` of the page before.

        Raises:
            ConfigurationError: `after` is none that a page has named.
        """

    async def summaries(self, sagas: Iterable[str]) -> dict[str, Summary]:
        """These sagas as they were folded last; those that are known."""

    async def counts(self) -> list[Count]:
        """How many sagas there are of each kind."""

    async def durations(self, type_name: str, shares: Sequence[float]) -> list[int]:
        """The durations (ms) of the sagas of a type that have ended, at these shares (0.5 is the median); none: empty."""

    async def beginning_with(self, prefix: str, limit: int) -> list[str]:
        """Sagas whose correlation id begins so."""

    async def sagas_of(self, event_id: str) -> list[str]:
        """Sagas that have an event of this id."""

    async def saga_of_letter(self, letter_id: str) -> list[str]:
        """Sagas that have a dead letter whose id begins so."""

    async def data_of(self, saga: str) -> dict[str, list[str]]:
        """The values of its searchable payload fields, by name."""

    async def progress(self) -> dict[TopicPartition, Place]:
        """How far every partition has been read."""

    async def commits(self, group: str, at: TopicPartition, since: int = 0) -> list[Commit]:
        """What a group had committed of a partition over time, from the last commit at or before `since` (ms) on.

        The older, the fewer are kept.
        """

    # --- housekeeping ---------------------------------------------------------------------------------------------

    async def note(self, name: str, value: str) -> None:
        """Keep a word about the tracker itself (how far behind it is, what it is made for)."""

    async def notes(self) -> dict[str, str]:
        """These words by their names."""

    def beside(self) -> TrackerStore:
        """A store of its own beside this one, to build anew what this one has; what an earlier attempt has left is not in it."""

    async def replace(self, rebuilt: TrackerStore) -> None:
        """Have at once what a store made by `beside` has, which is closed and gone then. This one need not be open.

        Whoever uses it is served all the while, before as before; an instance that reads into it is fenced, and goes on
        from what it has now.
        """

    async def expire(self, before_ms: int, limit: int) -> int:
        """Forget up to so many sagas whose last change is older, with all that was seen of them; how many were looked at.

        Those that are marked, those that time will change, and those that need somebody (a dead letter is open, something is
        to be undone) are left alone.
        """

    async def thin(self, now_ms: int) -> None:
        """Forget commits: of those older than an hour one a minute is kept, of those older than a day one an hour."""
