"""What to do after a handler raised. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from choreo.durations import seconds
from choreo.events import Failure
from choreo.retry import Retry

Kind = Literal["transient", "business", "fatal"]
Far = Literal["topic", "lane", "never"]
"""Where a wait longer than `Retry.in_place` is spent; `never`: there is none, the record goes to the dead letters."""


class Again(NamedTuple):
    """Call it again after this many seconds; the record waits in its lane."""

    delay: float


class Later(NamedTuple):
    """Call it again at this time (ms since the epoch); the record goes to the retry topic meanwhile."""

    due_ms: int


class Declare(NamedTuple):
    """Publish the failure that this function makes of event and exception."""

    failure: Callable[[Any, Any], Failure]


class GiveUp(NamedTuple):
    """The record goes to the dead letters; `kind` is that of `choreo.runtime.deadletter`."""

    kind: Literal["rejected", "fatal", "exhausted"]


Decision: TypeAlias = "Again | Later | Declare | GiveUp"


def kind_of(retry: Retry, error: BaseException, *, unnamed: Kind = "fatal") -> Kind:
    """The kind that names the error's nearest class; `unnamed` if none names any of them."""
    for cls in type(error).__mro__:
        if cls in retry.fatal:
            return "fatal"
        if cls in retry.business:
            return "business"
        if cls in retry.transient:
            return "transient"
    return unnamed


def decide(
    retry: Retry, error: BaseException, kind: Kind, *, attempt: int, first_ms: int, now_ms: int, chance: float, far: Far
) -> Decision:
    """What becomes of a failed attempt.

    Args:
        attempt: which call just failed, counted from 1.
        first_ms: when the first one failed.
        chance: a random number from 0 up to 1.
    """
    if kind == "fatal":
        return GiveUp("fatal")
    if kind == "business":
        if isinstance(retry.business, Mapping):
            return Declare(next(retry.business[cls] for cls in type(error).__mro__ if cls in retry.business))
        return GiveUp("rejected")
    ceiling = min(seconds(retry.max_delay), seconds(retry.delay) * 2.0 ** min(attempt - 1, 60))
    delay = chance * ceiling
    if attempt >= retry.attempts or now_ms + delay * 1000 > first_ms + seconds(retry.within) * 1000:
        return GiveUp("exhausted")
    if ceiling <= seconds(retry.in_place) or far == "lane":
        return Again(delay)
    return Later(now_ms + round(delay * 1000)) if far == "topic" else GiveUp("exhausted")
