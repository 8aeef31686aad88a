"""The library's Prometheus metrics, in a registry of their own.

`messaging_*` follows OpenTelemetry's messaging conventions (semconv 1.44, dots written as underscores); `choreo_*`
is what they do not name. A caller keeps the labelled child it needs: `sent.labels(service, topic)` costs a look-up,
`.inc()` on the child next to nothing. No label ever holds an id of an event or a saga.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

registry = CollectorRegistry()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # the conventions' buckets


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=registry)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=registry)


sent = _counter("messaging_client_sent_messages", "Events appended to the log", "service", "topic")
consumed = _counter("messaging_client_consumed_messages", "Records read from the log", "service", "topic")
process_duration = Histogram(
    "messaging_process_duration_seconds",
    "Duration of one handler run",
    ("service", "handler", "outcome"),
    buckets=_SECONDS,
    registry=registry,
)

retries = _counter("choreo_retries", "Handler runs after the first for the same event", "service", "handler")
dead_letters = _counter("choreo_dead_letters", "Records sent to a dead-letter topic", "service", "handler", "stage")
duplicates_dropped = _counter("choreo_duplicates_dropped", "Events dropped because the inbox knew them", "service")
rebalances = _counter("choreo_rebalances", "Changes of the partitions an instance owns", "service")
outbox_pending = _gauge("choreo_outbox_pending", "Emitted events not acknowledged by the log yet", "service")
in_flight = _gauge("choreo_in_flight", "Records taken in and not done yet", "service")

# From librdkafka's statistics, when the client setting statistics.interval.ms is on.
kafka_lag = _gauge(
    "choreo_kafka_consumer_lag", "Records a partition's reader is behind", "client", "topic", "partition"
)
kafka_queue = _gauge("choreo_kafka_queue", "Messages and events waiting inside a client", "client", "kind")
kafka_broker_up = _gauge("choreo_kafka_broker_up", "Whether a client is connected to a broker", "client", "broker")
kafka_round_trip = _gauge("choreo_kafka_round_trip_seconds", "Mean round trip to a broker", "client", "broker")
