"""Services: their decorators record declarations, nothing else. No handler runs here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from inspect import Signature
from typing import Any, Literal, TypeVar

from choreo import rules
from choreo.durations import Duration, seconds
from choreo.errors import DeclarationError
from choreo.events import Event, Failure
from choreo.handler import Batch, Compensation, Handler, Rule
from choreo.retry import Retry
from choreo.signatures import Emits, check_accepts, emits_of, read_signature

_HANDLER_NAME = re.compile(r"\w[\w-]{0,199}\Z")
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")

H = TypeVar("H", bound=Callable[..., Any])
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


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

        def rule(where: str, signature: Signature) -> None:
            if not events:
                raise DeclarationError(f"{where} names no event", remedy="write @service.on(SomeEvent)")
            check_accepts(next(iter(signature.parameters.values())), rules.named_events(where, "on", events), where)

        return self._declare(rule, events, ("event",), name, retry, timeout, ordered=ordered)

    def compensates(
        self,
        step: Callable[..., Any] | str,
        *,
        on: tuple[type[Failure], ...],
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration = "60s",
    ) -> Callable[[H], H]:
        """Declare what undoes a step when its saga fails.

            @payments.compensates(charge, on=(StockUnavailable, ShipmentRejected))
            async def refund(charged: PaymentCharged, failure: StockUnavailable | ShipmentRejected) -> PaymentRefunded: ...

        It is called once for each event that the step has emitted in the saga and that its first parameter takes, after the
        first of these failures; later ones change nothing. A step whose saga has failed already is not started. Events
        that it emits say that they compensate (`ce_compensates`).

        Args:
            step: the handler that it undoes, declared above in this service; its name, if its function has several.
            on: the failures.
            name, retry, timeout: as for `on`. What fails for good is a dead letter of kind `compensation`.

        Raises:
            DeclarationError: at import: no such step, nothing to undo, or no failure.
        """
        failures = on

        def rule(where: str, signature: Signature) -> Rule:
            undone = self._step(where, step)
            made = rules.compensation(where, signature, undone, failures)
            for other in self.handlers.values():
                if isinstance(other.rule, Compensation) and other.rule.step == undone.name:
                    rules.check_beside(where, made, str(other), other.rule)
            return made

        return self._declare(rule, failures, ("emitted", "failure"), name, retry, timeout, ordered=False)

    def join(
        self,
        *events: type[Event],
        by: str | None = None,
        need: int | None = None,
        count: int | Callable[[Any], int] | None = None,
        unless: tuple[type[Event], ...] = (),
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration = "60s",
    ) -> Callable[[H], H]:
        """Declare a handler for several events together, in any order of arrival; it fires once.

            @shipping.join(PaymentCharged, StockReserved, unless=(OrderCancelled,))
            async def ship(paid: PaymentCharged, reserved: StockReserved, ctx: Context) -> Shipped: ...

        Args:
            events: what it waits for, in the order of its parameters. Of each kind the first to come counts.
            by: a field that all of them have, and whose value they must have in common; the correlation id unless given.
            need: fires with so many of the events, all unless given; the others are None.
            count: how many of the last event to gather in a list: a number, or a function of the first event.
            unless: events of the same saga (or value of `by`) after which it cannot fire any more.
            name, retry, timeout: as for `on`.

        Raises:
            DeclarationError: at import: it could never fire, or its parameters do not fit.
        """

        def rule(where: str, signature: Signature) -> Rule:
            return rules.join(where, signature, events, by=by, need=need, count=count, unless=unless)

        takes = tuple(getattr(event, "__name__", "event").lower() for event in events) or ("event",)
        return self._declare(rule, (*events, *_tuple(unless)), takes, name, retry, timeout, ordered=False)

    def deadline(
        self,
        event: type[Event],
        *,
        within: Duration | None = None,
        every: Duration | None = None,
        times: int | None = None,
        unless: tuple[type[Event], ...] = (),
        grace: Duration = "500ms",
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration = "60s",
    ) -> Callable[[H], H]:
        """Declare a handler that is called with an event some time after it was produced, unless another one came.

            @orders.deadline(OrderPlaced, within="15m", unless=(OrderConfirmed, OrderCancelled))
            async def expire(order: OrderPlaced) -> OrderExpired: ...

        Args:
            event: what sets the timer; kept in the store, however long it takes.
            within: when it is called, counted from the event's own time.
            every, times: reminders: called again at this pace, `times` in all. Without `within`, the first time after `every`.
            unless: events of the saga that stop it if they were produced before its time. Where this names `event` itself, a
                later one stops the timer of an earlier one.
            grace: how long such an event may be under way; the handler is called so much later.
            name, retry, timeout: as for `on`.

        Raises:
            DeclarationError: at import: no time, or reminders without an end.
        """

        def rule(where: str, signature: Signature) -> Rule:
            return rules.deadline(
                where, signature, event, within=within, every=every, times=times, unless=unless, grace=grace
            )

        return self._declare(rule, (event, *_tuple(unless)), ("event",), name, retry, timeout, ordered=False)

    def batch(
        self,
        *events: type[Event],
        max_size: int = 500,
        max_age: Duration = "1s",
        per: Literal["partition", "key"] = "partition",
        name: str | None = None,
        retry: Retry | None = None,
        timeout: Duration = "60s",
    ) -> Callable[[H], H]:
        """Declare a handler that is called with many events at once, in their order.

            @lake.batch(Clicked, max_size=500, max_age="2s")
            async def load(clicks: list[Clicked], ctx: BatchContext) -> None: ...

        What it writes through `ctx.db` and how far it has come are one transaction. When it fails for good it is called again with
        each half of the batch, until the record that fails is alone and goes to the dead letters. What it emits begins
        sagas of its own.

        Args:
            events: what it takes; no other handler of the service may take these.
            max_size: how many events at most.
            max_age: how long the first of them waits for others.
            per: whether a batch holds events of one partition, or of one key.
            name, retry, timeout: as for `on`.

        Raises:
            DeclarationError: at import: its parameter is no list of these events, or another handler takes one of them.
        """

        def rule(where: str, signature: Signature) -> Rule:
            if not events:
                raise DeclarationError(f"{where} names no event", remedy="write @service.batch(SomeEvent)")
            named = rules.named_events(where, "batch", events)
            return rules.batch(where, signature, named, max_size=max_size, max_age=max_age, per=per)

        return self._declare(rule, events, ("events",), name, retry, timeout, ordered=False)

    def _declare(
        self,
        rule_of: Callable[[str, Signature], Rule | None],
        events: tuple[type[Event], ...],
        takes: tuple[str, ...],
        name: str | None,
        retry: Retry | None,
        timeout: Duration,
        *,
        ordered: bool,
    ) -> Callable[[H], H]:
        def declare(function: H) -> H:
            handler_name = name or str(getattr(function, "__name__", ""))
            where = f"handler {self.name}.{handler_name}"
            self._check_name(where, handler_name)
            if not seconds(timeout):
                raise DeclarationError(f"{where} has the timeout 0", why="every call would be given up")
            signature = read_signature(function, where, *takes)
            rule = rule_of(where, signature)
            if rule is not None and self.transactional:
                raise DeclarationError(
                    f"{where} needs a store, and service {self.name!r} is transactional",
                    why="what a compensation, join, deadline or batch waits for is kept there",
                    remedy="leave out transactional=True",
                )
            emits = emits_of(signature, where)
            _check_failures(where, retry or Retry(), emits)
            handler = Handler(
                service=self.name,
                name=handler_name,
                function=function,
                consumes=tuple(dict.fromkeys(events)),
                emits=emits,
                takes_context=len(signature.parameters) > len(takes),
                is_async=inspect.iscoroutinefunction(function),
                retry=retry or Retry(),
                timeout=seconds(timeout),
                ordered=ordered,
                rule=rule,
            )
            self._check_alone(handler)
            self._check_type_names(where, (*handler.consumes, *emits.classes))
            self.handlers[handler_name] = handler
            return function

        return declare

    def _check_name(self, where: str, name: str) -> None:
        if not _HANDLER_NAME.match(name):
            raise DeclarationError(
                f"{where} has no legal name", remedy="give it one of letters, digits, '_' or '-': name='...'"
            )
        if name in self.handlers:
            raise DeclarationError(
                f"{where} is declared twice", remedy="rename one of the functions, or give one of them name='...'"
            )

    def _step(self, where: str, step: Callable[..., Any] | str) -> Handler:
        """The handler that a compensation names."""
        found = [handler for handler in self.handlers.values() if step in (handler.name, handler.function)]
        if len(found) == 1:
            return found[0]
        shown = step if isinstance(step, str) else getattr(step, "__name__", repr(step))
        if found:
            raise DeclarationError(
                f"{where} would undo {shown!r}, which is several handlers",
                remedy=f"name one of them: {', '.join(repr(handler.name) for handler in found)}",
            )
        raise DeclarationError(
            f"{where} would undo {shown!r}, which is no handler of service {self.name!r}",
            remedy="declare the step first, in the same service",
        )

    def _check_alone(self, handler: Handler) -> None:
        """Check that what comes in batches comes to nobody else here: a record is done when its batch is."""
        for other in self.handlers.values():
            both = set(other.consumes) & set(handler.consumes)
            if both and (isinstance(other.rule, Batch) or isinstance(handler.rule, Batch)):
                raise DeclarationError(
                    f"handlers {other} and {handler} both take {next(iter(both)).__name__}, one of them in batches",
                    remedy="let another service take it too",
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


def _tuple(events: tuple[type[Event], ...]) -> tuple[type[Event], ...]:
    return events if isinstance(events, tuple) else ()  # what else it is, the rule says


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
