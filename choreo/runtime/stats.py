"""What an instance has done, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal

from choreo.observe.durations import Durations
from choreo.observe.sources import Sample

Operation = Literal["send", "poll", "commit"]
_TYPES = {"send": "send", "poll": "receive", "commit": "settle"}
_MOST_ERRORS = 20
"""How many types of errors of one handler are told apart; programs may make types as they run."""
_OTHER = "_OTHER"
"""OpenTelemetry's word for an error type that is not told apart."""
_topic_of = itemgetter(0)


@dataclass(slots=True)
class Stats:
    """Counts since the instance started; a run whose transaction fails is counted again when it is repeated.

    Attributes:
        handled: handler runs that ended well.
        emitted: events they emitted.
        duplicates: (event, handler) pairs dropped because the inbox knew them.
        retries: attempts after the first.
        dead_letters: records sent to the dead letters.
        retried: of these attempts, how many of each handler wait where: `lane` or `topic`.
        letters: of the dead letters, how many of each handler and kind.
        undone: compensations that have taken effect, by handler.
        opened: how often the circuit breaker of a handler has opened.
        rebalances: calls of the group's listener: `assigned`, `revoked`, `lost`.
        failures: transactions of which nothing took effect, by reason.
        consumed, sent: records read and appended, by topic.
        calls: handler calls, by handler, topic and type of the error (empty if it did well).
        operations: those on the log, by name and type of the error.
    """

    handled: int = 0
    emitted: int = 0
    duplicates: int = 0
    retries: int = 0
    dead_letters: int = 0
    retried: Counter[tuple[str, str]] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    undone: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    rebalances: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    consumed: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    calls: dict[tuple[str, str, str], Durations] = field(default_factory=dict)
    operations: dict[tuple[Operation, str], Durations] = field(default_factory=dict)

    def called(self, handler: str, topic: str, seconds: float, error: str = "") -> None:
        """A handler was called for a record, or for several; `error`: the type of what it raised."""
        found = self.calls.get((handler, topic, error))
        if found is None:
            known = sum(name == handler for name, _, failed in self.calls if failed)
            key = (handler, topic, _OTHER if error and known >= _MOST_ERRORS else error)
            found = self.calls.setdefault(key, Durations())
        found.add(seconds)

    def took(self, operation: Operation, seconds: float, error: str = "") -> None:
        """An operation on the log has ended."""
        found = self.operations.get((operation, error))
        if found is None:
            found = self.operations[operation, error] = Durations()
        found.add(seconds)

    def retry(self, handler: str, where: Literal["lane", "topic"]) -> None:
        """Another attempt is to come."""
        self.retries += 1
        self.retried[handler, where] += 1

    def bury(self, handler: str, kind: str) -> None:
        """A record goes to the dead letters; the handler is empty where that is no single one."""
        self.dead_letters += 1
        self.letters[handler, kind] += 1

    def read(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Records have come."""
        self.consumed.update(map(_topic_of, records))

    def appended(self, records: Iterable[tuple[Any, ...]]) -> None:
        """Records are in the log."""
        self.sent.update(map(_topic_of, records))

    def samples(self, service: str) -> Iterator[Sample]:
        """All of it as metrics of this service; see `choreo.observe.metrics` for what they mean."""
        for (handler, topic, error), durations in self.calls.items():
            labels = ("kafka", "process", service, topic, handler, error)
            yield "messaging_process_duration_seconds", labels, durations
        for topic, count in self.consumed.items():
            yield "messaging_client_consumed_messages", ("kafka", "poll", service, topic), count
        yield from self.client_samples(service)
        yield "choreo_handled", (service,), self.handled
        yield "choreo_emitted", (service,), self.emitted
        yield "choreo_inbox_drops", (service,), self.duplicates
        yield from self._failures(service)

    def client_samples(self, client: str) -> Iterator[Sample]:
        """Those of a service or program that publishes."""
        for (name, error), durations in self.operations.items():
            labels = ("kafka", name, _TYPES[name], client, error)
            yield "messaging_client_operation_duration_seconds", labels, durations
        for topic, count in self.sent.items():
            yield "messaging_client_sent_messages", ("kafka", "send", client, topic), count

    def _failures(self, service: str) -> Iterator[Sample]:
        yield from (("choreo_retries", (service, *key), count) for key, count in self.retried.items())
        for (handler, kind), count in self.letters.items():
            yield "choreo_dead_letters", (service, handler, kind), count
            if kind == "compensation":
                yield "choreo_compensations", (service, handler, "failed"), count
        yield from (("choreo_compensations", (service, name, "done"), count) for name, count in self.undone.items())
        yield from (("choreo_breaker_openings", (service, name), count) for name, count in self.opened.items())
        yield from (("choreo_rebalances", (service, kind), count) for kind, count in self.rebalances.items())
        yield from (("choreo_transaction_failures", (service, why), count) for why, count in self.failures.items())
