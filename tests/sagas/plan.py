"""What happens to some sagas: their handlers' answers, what arrives when, and what dies where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import strategies as st

from tests.sagas.choreography import SERVICES
from tests.sagas.link import POINTS

PAIRS = tuple((service.name, topic) for service in SERVICES for topic in service.topics)
"""Who reads what: each can be held up by itself."""

STEPS = ("charge", "reserve", "ship", "award", "stamp")
_OTHERS = ("refund", "put_back", "recall", "revoke", "unstamp", "confirm", "report", "give_up", "expire")


@dataclass(frozen=True)
class Saga:
    """An order.

    Attributes:
        after: how many of the plan's operations come before it.
        answers: by handler; those that are not named do their work.
    """

    after: int = 0
    stamps: int = 1
    answers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Let:
    """So many more records of each partition of this topic reach the service; None: all, from now on."""

    service: str
    topic: str
    count: int | None = None


@dataclass(frozen=True)
class Hold:
    """From now on nothing more of this topic reaches the service."""

    service: str
    topic: str


@dataclass(frozen=True)
class Copy:
    """An event that is in the log is written once more; `elsewhere`: into another partition."""

    which: int
    elsewhere: bool = False


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Crash:
    """The service's instance dies when it passes this point the `nth` time from now."""

    service: str
    point: str
    nth: int = 1


@dataclass(frozen=True)
class Start:
    """One instance more, of two at most."""

    service: str


@dataclass(frozen=True)
class Stop:
    """An instance ends in good order."""

    service: str


@dataclass(frozen=True)
class Freeze:
    """The service's instance stands still, and its group takes it for dead."""

    service: str


@dataclass(frozen=True)
class Thaw:
    """The service's frozen instances go on where they were."""

    service: str


@dataclass(frozen=True)
class Redrive:
    """The service's dead letters are given back to it."""

    service: str


Operation: TypeAlias = "Let | Hold | Copy | Wait | Crash | Start | Stop | Freeze | Thaw | Redrive"


@dataclass(frozen=True)
class Plan:
    """One example.

    Attributes:
        twins: services that begin with two instances.
        held: what is held up from the beginning.
        crashes: those that are planned from the beginning.
        chance: the seed of who comes first where nothing else decides.
    """

    sagas: tuple[Saga, ...] = (Saga(),)
    twins: frozenset[str] = frozenset()
    held: frozenset[tuple[str, str]] = frozenset()
    crashes: tuple[Crash, ...] = ()
    operations: tuple[Operation, ...] = ()
    chance: int = 0


_NAMES = st.sampled_from([service.name for service in SERVICES])
_PAIRS = st.sampled_from(PAIRS)


_ENDS = (
    *(None, None),
    *(("ship", "refuses"), ("ship", "nothing"), ("award", "refuses"), ("award", "nothing"), ("stamp", "nothing")),
    *(("charge", "refuses"), ("charge", "raises refusal"), ("reserve", "raises refusal"), ("reserve", "nothing")),
    *(("confirm", "fails"), ("ship", "fails"), ("charge", "fails")),
)
"""What lets a saga fail, mostly late, when there is much to undo; nothing lets it be completed if time suffices."""


def _sagas() -> st.SearchStrategy[Saga]:
    trouble = st.tuples(st.sampled_from((*STEPS, *_OTHERS)), st.sampled_from(("stumbles", "fails")))
    answers = st.builds(
        lambda end, troubles: {**dict(troubles), **dict([end] if end else [])},
        st.sampled_from(_ENDS),
        st.lists(trouble, max_size=3),
    )
    return st.builds(Saga, after=st.integers(0, 3), stamps=st.integers(0, 2), answers=answers)


def _crashes() -> st.SearchStrategy[Crash]:
    return st.builds(Crash, _NAMES, st.sampled_from(POINTS), st.integers(1, 6))


def plans() -> st.SearchStrategy[Plan]:
    """All plans."""
    operations = st.one_of(
        st.builds(lambda pair, count: Let(*pair, count), _PAIRS, st.sampled_from([1, 1, 2, None])),
        st.builds(lambda pair: Hold(*pair), _PAIRS),
        st.builds(Copy, st.integers(0, 30), st.booleans()),
        st.builds(Wait, st.sampled_from([1, 5, 59, 61])),
        st.builds(Wait, st.sampled_from([20, 61])),
        _crashes(),
        st.builds(Start, _NAMES),
        st.builds(Stop, _NAMES),
        st.builds(Freeze, _NAMES),
        st.builds(Thaw, _NAMES),
        st.builds(Redrive, _NAMES),
    )
    return st.builds(
        Plan,
        sagas=st.lists(_sagas(), min_size=1, max_size=3).map(tuple),
        twins=st.one_of(st.just(frozenset(service.name for service in SERVICES)), st.frozensets(_NAMES)),
        held=st.frozensets(_PAIRS, max_size=12),
        crashes=st.lists(_crashes(), max_size=4).map(tuple),
        operations=st.one_of(st.lists(operations, max_size=5), st.lists(operations, min_size=6, max_size=12)).map(
            tuple
        ),
        chance=st.integers(0, 2**64),
    )
