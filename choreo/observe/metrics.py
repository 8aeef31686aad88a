"""The library's Prometheus metrics, in a registry of their own. No label ever holds an id of an event or a saga."""

from prometheus_client import CollectorRegistry, Gauge

registry = CollectorRegistry()


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=registry)


# From librdkafka's statistics, when the client setting statistics.interval.ms is on.
kafka_lag = _gauge("choreo_kafka_consumer_lag", "Records a reader is behind", "client", "topic", "partition")
kafka_queue = _gauge("choreo_kafka_queue", "Messages and events waiting inside a client", "client", "kind")
kafka_broker_up = _gauge("choreo_kafka_broker_up", "Whether a client is connected to a broker", "client", "broker")
kafka_round_trip = _gauge("choreo_kafka_round_trip_seconds", "Mean round trip to a broker", "client", "broker")
