"""The library's Prometheus metrics, in a registry of their own. No label ever holds an id of an event or a saga, or a key.

What services count is kept in plain numbers (`choreo.runtime.stats`) and becomes metrics when somebody asks for them.
`docs/metrics.md` says the same as the definitions here, and a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from choreo.observe.durations import BOUNDS, Durations
from choreo.observe.sources import sources

registry = CollectorRegistry()


class Definition(NamedTuple):
    """What a metric means; the name of a counter gets `_total` when it is shown."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...]


_CLIENT = ("messaging_system", "messaging_operation_name")
_GROUP = "messaging_consumer_group_name"
_TOPIC = "messaging_destination_name"
DEFINITIONS = (
    Definition("messaging_client_sent_messages", "counter", "Records that the log has acknowledged", (*_CLIENT, "messaging_client_id", _TOPIC)),
    Definition("messaging_client_consumed_messages", "counter", "Records that have come from the log", (*_CLIENT, _GROUP, _TOPIC)),
    Definition("messaging_client_operation_duration_seconds", "histogram", "Duration of appends (send), of taking in what has come (poll), of commits of offsets (commit)", (*_CLIENT, "messaging_operation_type", "messaging_client_id", "error_type")),
    Definition("messaging_process_duration_seconds", "histogram", "Duration of handlers' calls", (*_CLIENT, _GROUP, _TOPIC, "handler", "error_type")),
    Definition("choreo_handled", "counter", "Handler runs that took effect", ("service",)),
    Definition("choreo_emitted", "counter", "Events that handlers emitted", ("service",)),
    Definition("choreo_inbox_drops", "counter", "Copies of events that the inbox dropped", ("service",)),
    Definition("choreo_retries", "counter", "Attempts after the first: where they wait is lane or topic", ("service", "handler", "where")),
    Definition("choreo_dead_letters", "counter", "Records that went to the dead letters", ("service", "handler", "kind")),
    Definition("choreo_compensations", "counter", "Compensations: outcome is done or failed", ("service", "handler", "outcome")),
    Definition("choreo_breaker_openings", "counter", "Times that a handler's circuit breaker opened", ("service", "handler")),
    Definition("choreo_breaker_open", "gauge", "1 while a handler's circuit breaker is open", ("service", "handler")),
    Definition("choreo_rebalances", "counter", "Changes of what an instance owns: assigned, revoked or lost", ("service", "kind")),
    Definition("choreo_transaction_failures", "counter", "Transactions that were undone; their records are handled again", ("service", "reason")),
    Definition("choreo_time_lag_seconds", "gauge", "Age of the oldest record that is read and not handled; 0 if there is none", ("service", "topic")),
    Definition("choreo_partitions", "gauge", "Partitions that an instance owns", ("service",)),
    Definition("choreo_records_in_flight", "gauge", "Records read and not handled", ("service",)),
    Definition("choreo_lanes", "gauge", "Lanes with work: ready, running, or deferred to a later attempt", ("service", "state")),
    Definition("choreo_parked_keys", "gauge", "Keys whose first record is on the retry topic or a dead letter", ("service",)),
    Definition("choreo_outbox_records", "gauge", "Emitted records that are not known to be in the log", ("service",)),
    Definition("choreo_outbox_age_seconds", "gauge", "Age of the oldest of them; 0 if there is none", ("service",)),
    Definition("choreo_timers_pending", "gauge", "Deadlines that are set", ("service",)),
    Definition("choreo_timers_late_seconds", "gauge", "How long the earliest of them has been due; 0 if none is", ("service",)),
    Definition("choreo_threads_given_up", "gauge", "Threads of handlers that go on though they were given up", ("service",)),
)  # fmt: skip


class _Services(Collector):
    """What the sources of this process have counted."""

    def collect(self) -> Iterator[Metric]:
        """Of several samples with the same labels, counts are added up, and of gauges the highest is shown."""
        found: dict[str, dict[tuple[str, ...], float | Durations]] = {each.name: {} for each in DEFINITIONS}
        kinds = {each.name: each.kind for each in DEFINITIONS}
        for source in tuple(sources):
            for name, labels, value in source.samples():
                known = found[name].get(labels)
                found[name][labels] = value if known is None else _together(kinds[name], known, value)
        for definition in DEFINITIONS:
            yield _family(definition, found[definition.name])


def _together(kind: str, one: float | Durations, other: float | Durations) -> float | Durations:
    if isinstance(one, Durations) and isinstance(other, Durations):
        made = Durations()
        made.counts = [mine + theirs for mine, theirs in zip(one.counts, other.counts, strict=True)]
        made.total = one.total + other.total
        return made
    assert not isinstance(one, Durations)  # noqa: S101 - a metric is of one kind
    assert not isinstance(other, Durations)  # noqa: S101 - as above
    return one + other if kind == "counter" else max(one, other)


def _family(definition: Definition, found: dict[tuple[str, ...], float | Durations]) -> Metric:
    name, kind, meaning, labels = definition
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, meaning, labels=labels)
        for values, durations in found.items():
            assert isinstance(durations, Durations)  # noqa: S101 - as above
            bounds = [*map(str, BOUNDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
            histogram.add_metric(values, buckets, durations.total)
        return histogram
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)
    for values, value in found.items():
        assert not isinstance(value, Durations)  # noqa: S101 - as above
        family.add_metric(values, value)
    return family


registry.register(_Services())


async def exposition() -> tuple[bytes, str]:
    """All metrics of this process as Prometheus reads them, and the content type of that."""
    for source in tuple(sources):
        await source.refresh()
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=registry)


# From librdkafka's statistics, when the client setting statistics.interval.ms is on.
kafka_lag = _gauge("choreo_kafka_consumer_lag", "Records a reader is behind", "client", "topic", "partition")
kafka_queue = _gauge("choreo_kafka_queue", "Messages and events waiting inside a client", "client", "kind")
kafka_broker_up = _gauge("choreo_kafka_broker_up", "Whether a client is connected to a broker", "client", "broker")
kafka_round_trip = _gauge("choreo_kafka_round_trip_seconds", "Mean round trip to a broker", "client", "broker")
