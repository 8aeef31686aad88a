"""What a handler's service does when the handler raises: the declaration. How it is carried out is the runtime's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from choreo.durations import Duration, seconds
from choreo.errors import DeclarationError
from choreo.events import Failure


@dataclass(frozen=True, kw_only=True)
class Retry:
    """What to do when a handler raises, by the kind of the exception.

    An exception is of the kind that names its nearest class: with `transient=(Exception,), fatal=(TypeError,)` a
    `TypeError` is fatal and every other exception transient. One that no kind names is fatal.

    Attributes:
        attempts: how often it is called at most, the first time included; 1 means never again.
        within: no attempt begins later than this after the first.
        delay: the longest wait before the second attempt; it doubles with each further one. The actual wait is
            drawn evenly from zero to that ("full jitter", AWS Architecture Blog, 2015), so that many do not
            come back together.
        max_delay: where the doubling stops.
        in_place: waits that may be longer than this are spent in the retry topic, shorter ones in the lane.
        transient: exceptions that may not come again; worth another attempt.
        business: exceptions that mean "no": never tried again, and no sign of trouble for the circuit breaker. They
            go to the dead letters, or, given as a mapping, become the failure that a function makes of event and
            exception; the handler's return annotation must name it.
        fatal: exceptions that would come again: straight to the dead letters.
    """

    attempts: int = 5
    within: Duration = "1h"
    delay: Duration = "100ms"
    max_delay: Duration = "5m"
    in_place: Duration = "1s"
    transient: tuple[type[BaseException], ...] = (Exception,)
    business: tuple[type[BaseException], ...] | Mapping[type[BaseException], Callable[[Any, Any], Failure]] = ()
    fatal: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise DeclarationError(f"Retry(attempts={self.attempts})", why="a handler is called at least once")
        for duration in (self.within, self.in_place):
            seconds(duration)
        if seconds(self.delay) > seconds(self.max_delay):
            raise DeclarationError(
                f"Retry(delay={self.delay!r}, max_delay={self.max_delay!r})", why="delay is longer than max_delay"
            )
        kinds: dict[type[BaseException], str] = {}
        for kind in ("transient", "business", "fatal"):
            for error in getattr(self, kind):
                if not (isinstance(error, type) and issubclass(error, BaseException)):
                    raise DeclarationError(f"Retry({kind}=...) names {error!r}", why="that is no exception class")
                if kinds.setdefault(error, kind) != kind:
                    raise DeclarationError(
                        f"Retry names {error.__name__} as {kinds[error]} and as {kind}", remedy="name it once"
                    )
