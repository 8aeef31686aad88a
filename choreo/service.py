"""Services: their decorators record declarations, nothing else. No handler runs here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from choreo.durations import Duration, seconds
from choreo.errors import DeclarationError
from choreo.events import Event, Failure, is_event_class
from choreo.signatures import Emits, emits_of, events_of_parameter, read_signature

_HANDLER_NAME = re.compile(r"\w[\w-]{0,199}\Z")
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")

H = TypeVar("H", bound=Callable[..., Any])
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


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


@dataclass(frozen=True, kw_only=True)
class Handler:
    """One declared handler of a service.

    Attributes:
        service, name: together its identity in event ids, dead letters and the choreography.
        function: what the user wrote.
        consumes: the event classes it is called with.
        emits: what its return annotation declares.
        takes_context: whether it has a second parameter, `ctx`.
        is_async: `async def` runs on the event loop, `def` in a worker thread.
        timeout: seconds after which a call is given up.
        ordered: whether a key's events wait while one of them is being retried or is a dead letter.
    """

    service: str
    name: str
    function: Callable[..., Any]
    consumes: tuple[type[Event], ...]
    emits: Emits
    takes_context: bool
    is_async: bool
    retry: Retry
    timeout: float
    ordered: bool

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"


@dataclass(frozen=True)
class Service:
    """An independent service: a name (its consumer group), its handlers and its own store.

        payments = Service("payments", store="sqlite:///payments.db")

    Args:
        name: unique in the choreography; letters, digits, '.', '_' and '-', at most 200.
        store: where its state lives, `sqlite:///path` (`{service}` stands for the name).
            Unless given, CHOREO_STORE or `sqlite:///.choreo/{service}.db`.
        tables: SQL that makes the service's own tables in its store; run at each start, so write
            `CREATE TABLE IF NOT EXISTS ...`.
        lifespan: an async context manager entered before the first event and left after the last; what it yields
            is `ctx.state` (clients, pools).
        concurrency: how many handlers may be under way at once in one process; each key's events stay in order.
        transactional: it has no store: what is read, what is emitted and how far it has come are one transaction of the
            log. Its handlers have no `ctx.db`, and retries are in place.

    Raises:
        DeclarationError: at import, when the name is no legal consumer group.
    """

    name: str
    store: str | None = field(default=None, kw_only=True)
    tables: str = field(default="", kw_only=True, repr=False)
    lifespan: Lifespan | None = field(default=None, kw_only=True)
    concurrency: int = field(default=100, kw_only=True)
    transactional: bool = field(default=False, kw_only=True)
    handlers: dict[str, Handler] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _SERVICE_NAME.match(self.name):
            raise DeclarationError(
                f"service name {self.name!r} is no legal consumer group",
                remedy="use 1 to 200 letters, digits, '.', '_' or '-', starting with a letter or digit",
            )
        if self.concurrency < 1:
            raise DeclarationError(f"service {self.name!r} has concurrency {self.concurrency}", remedy="use 1 or more")
        if self.transactional and (self.store or self.tables):
            raise DeclarationError(
                f"service {self.name!r} is transactional and has a store", remedy="leave out one of the two"
            )

    def on(
        self,
        *events: type[Event],
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration = "60s",
        ordered: bool = True,
    ) -> Callable[[H], H]:
        """Declare a handler for these events.

        Args:
            events: the event classes it is called with, one at a time.
            name: the handler's name; the function's unless given. It is part of event ids, so renaming a handler
                while its events are under way lets it emit them once more.
            retry: what to do when it raises; `Retry()` unless given.
            timeout: a call that takes longer is given up and counts as a transient failure. A `def` handler cannot be
                stopped: its thread goes on, and what it does counts no more.
            ordered: whether later events of a key wait for one that is being retried or is a dead letter.

        Raises:
            DeclarationError: at import: no or a wrong return annotation, an argument that is no event, a name used twice.
        """
        if events and inspect.isroutine(events[0]):
            raise DeclarationError(
                f"handler {self.name}.{events[0].__name__} names no event", remedy="write @service.on(SomeEvent)"
            )

        def declare(function: H) -> H:
            handler_name = name or str(getattr(function, "__name__", ""))
            self._add(function, events, handler_name, retry or Retry(), seconds(timeout), ordered=ordered)
            return function

        return declare

    def _add(
        self,
        function: Callable[..., Any],
        events: tuple[type[Event], ...],
        name: str,
        retry: Retry,
        timeout: float,
        *,
        ordered: bool,
    ) -> None:
        where = f"handler {self.name}.{name}"
        if not _HANDLER_NAME.match(name):
            raise DeclarationError(
                f"{where} has no legal name", remedy="give it one of letters, digits, '_' or '-': name='...'"
            )
        if name in self.handlers:
            raise DeclarationError(
                f"{where} is declared twice", remedy="rename one of the functions, or give one of them name='...'"
            )
        self._check_consumed(where, events)
        if not timeout:
            raise DeclarationError(f"{where} has the timeout 0", why="every call would be given up")
        signature = read_signature(function, where)
        events_of_parameter(signature, events, where)
        emits = emits_of(signature, where)
        _check_failures(where, retry, emits)
        handler = Handler(
            service=self.name,
            name=name,
            function=function,
            consumes=tuple(dict.fromkeys(events)),
            emits=emits,
            takes_context=len(signature.parameters) > 1,
            is_async=inspect.iscoroutinefunction(function),
            retry=retry,
            timeout=timeout,
            ordered=ordered,
        )
        self._check_type_names(where, (*events, *emits.classes))
        self.handlers[name] = handler

    def _check_consumed(self, where: str, events: tuple[type[Event], ...]) -> None:
        if not events:
            raise DeclarationError(f"{where} names no event", remedy="write @service.on(SomeEvent)")
        for event in events:
            if not is_event_class(event):
                raise DeclarationError(
                    f"{where} is declared on {event!r}, which is no event",
                    remedy="name a class that derives from choreo.Event with topic= and key=",
                )

    def _check_type_names(self, where: str, classes: tuple[type[Event], ...]) -> None:
        known = {cls.contract.type_name: cls for cls in self.event_classes}
        for cls in classes:
            other = known.setdefault(cls.contract.type_name, cls)
            if other is not cls:
                raise DeclarationError(
                    f"{where} uses {cls.__module__}.{cls.__qualname__}, but {other.__module__}.{other.__qualname__} "
                    f"has the same type name {cls.contract.type_name!r}",
                    remedy="a type name means one class: rename one of them, or give one name='...'",
                )

    @property
    def event_classes(self) -> tuple[type[Event], ...]:
        """Every event class its handlers consume or emit, each once, in order of declaration."""
        found: dict[type[Event], None] = {}
        for handler in self.handlers.values():
            found.update(dict.fromkeys((*handler.consumes, *handler.emits.classes)))
        return tuple(found)

    @property
    def topics(self) -> list[str]:
        """The topics of the events that its handlers consume, by name."""
        consumed = (event for handler in self.handlers.values() for event in handler.consumes)
        return sorted({topic for event in consumed for topic in event.contract.topics})


def _check_failures(where: str, retry: Retry, emits: Emits) -> None:
    """Check that the functions of a business mapping, where they are annotated, make failures that are declared."""
    functions = retry.business.values() if isinstance(retry.business, Mapping) else ()
    for function in functions:
        signature = read_signature(function, f"{where}: a function of Retry(business=...)")
        if signature.return_annotation is signature.empty:
            continue
        for cls in emits_of(signature, where).classes:
            if not issubclass(cls, Failure) or cls not in emits.classes:
                raise DeclarationError(
                    f"{where} turns a business error into {cls.__name__}, which is no failure it declares",
                    remedy=f"derive {cls.__name__} from Failure, and name it in the handler's return annotation",
                )
