from prometheus_client import REGISTRY, generate_latest

from choreo.observe import metrics


def test_the_process_wide_registry_is_left_alone():
    metrics.kafka_lag.labels("naming", "orders", "0").set(3)
    assert "choreo_kafka_consumer_lag" in generate_latest(metrics.registry).decode()
    assert not any(name.startswith("choreo_") for name in REGISTRY._names_to_collectors)
