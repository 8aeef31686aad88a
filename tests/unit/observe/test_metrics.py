from prometheus_client import REGISTRY, generate_latest

from choreo.observe import metrics


def test_names_are_the_conventions_own():
    metrics.sent.labels("naming", "orders").inc(2)
    metrics.consumed.labels("naming", "orders").inc()
    metrics.process_duration.labels("naming", "charge", "ok").observe(0.02)
    metrics.retries.labels("naming", "charge").inc()
    metrics.dead_letters.labels("naming", "charge", "decode").inc()
    metrics.duplicates_dropped.labels("naming").inc()
    metrics.rebalances.labels("naming").inc()
    metrics.outbox_pending.labels("naming").set(3)
    metrics.in_flight.labels("naming").set(4)
    text = generate_latest(metrics.registry).decode()
    for line in (
        'messaging_client_sent_messages_total{service="naming",topic="orders"} 2.0',
        'messaging_client_consumed_messages_total{service="naming",topic="orders"} 1.0',
        'messaging_process_duration_seconds_bucket{handler="charge",le="0.025",outcome="ok",service="naming"} 1.0',
        'choreo_retries_total{handler="charge",service="naming"} 1.0',
        'choreo_dead_letters_total{handler="charge",service="naming",stage="decode"} 1.0',
        'choreo_duplicates_dropped_total{service="naming"} 1.0',
        'choreo_rebalances_total{service="naming"} 1.0',
        'choreo_outbox_pending{service="naming"} 3.0',
        'choreo_in_flight{service="naming"} 4.0',
    ):
        assert line in text


def test_the_process_wide_registry_is_left_alone():
    assert not any(name.startswith(("choreo_", "messaging_")) for name in REGISTRY._names_to_collectors)
