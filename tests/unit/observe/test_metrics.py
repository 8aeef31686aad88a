import gc
import re
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from choreo.observe import metrics, saga_metrics
from choreo.observe.durations import BOUNDS, Durations
from choreo.observe.sources import sources
from choreo.runtime.stats import Stats

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


class Shown:
    """A source with these samples."""

    def __init__(self, *samples):
        self._samples = samples

    def samples(self):
        return self._samples

    async def refresh(self): ...


@pytest.fixture
def show(monkeypatch):
    """Adds a source; there is no other, whatever earlier tests have left."""
    shown = []
    monkeypatch.setattr(metrics, "sources", shown)
    return lambda *samples: shown.append(Shown(*samples))


def test_a_source_that_nobody_holds_has_nothing_to_show():
    source = Shown(("choreo_handled", ("held",), 1))
    sources.add(source)
    assert value("choreo_handled_total", service="held") == 1
    del source
    gc.collect()
    assert value("choreo_handled_total", service="held") is None


def value(name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_the_process_wide_registry_is_left_alone():
    metrics.kafka_lag.labels("naming", "orders", "0").set(3)
    assert "choreo_kafka_consumer_lag" in generate_latest(metrics.registry).decode()
    assert not any(name.startswith("choreo_") for name in REGISTRY._names_to_collectors)


def test_the_table_in_the_docs_is_what_is_exported():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \|", DOCS.read_text("utf-8"), re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert Counter(name for name, *_ in rows).most_common(1)[0][1] == 1, "each is told once"
    exported = {}
    for definition in metrics.DEFINITIONS:
        name = definition.name + ("_total" if definition.kind == "counter" else "")
        exported[name] = (definition.kind, definition.labels)
    for module in (metrics, saga_metrics):
        for each in vars(module).values():
            if hasattr(each, "_labelnames"):
                name = each._name + ("_total" if each._type == "counter" else "")
                exported[name] = (each._type, each._labelnames)
    assert told == exported


def test_no_label_can_hold_an_id_or_a_key():
    labels = {label for each in metrics.DEFINITIONS for label in each.labels}
    for module in (metrics, saga_metrics):
        labels |= {name for each in vars(module).values() for name in getattr(each, "_labelnames", ())}
    assert labels <= {
        *("messaging_system", "messaging_operation_name", "messaging_operation_type", "messaging_client_id"),
        *("messaging_consumer_group_name", "messaging_destination_name", "error_type", "service", "handler", "kind"),
        *("where", "outcome", "reason", "state", "type", "topic", "partition", "client", "broker"),
    }


def test_what_is_counted_is_what_is_shown(show):
    stats = Stats(handled=3, emitted=2, duplicates=1)
    stats.called("pay", "orders", 0.02)
    stats.called("pay", "orders", 0.02)
    stats.called("pay", "orders", 99.0, "ValueError")
    stats.retry("pay", "lane")
    stats.bury("pay", "fatal")
    stats.bury("undo", "compensation")
    stats.read([("orders", 1), ("orders", 2), ("stock", 1)])
    stats.appended([("payments", 1)])
    stats.took("send", 0.5, "LogUnavailableError")
    show(*stats.samples("payments"))
    process = {
        "messaging_system": "kafka", "messaging_operation_name": "process", "messaging_consumer_group_name": "payments",
        "messaging_destination_name": "orders", "handler": "pay",
    }  # fmt: skip
    assert value("messaging_process_duration_seconds_count", **process, error_type="") == 2
    assert value("messaging_process_duration_seconds_sum", **process, error_type="") == pytest.approx(0.04)
    assert value("messaging_process_duration_seconds_bucket", **process, error_type="", le="0.01") == 0
    assert value("messaging_process_duration_seconds_bucket", **process, error_type="", le="0.025") == 2
    assert value("messaging_process_duration_seconds_bucket", **process, error_type="ValueError", le="10.0") == 0
    assert value("messaging_process_duration_seconds_bucket", **process, error_type="ValueError", le="+Inf") == 1
    sent = {"messaging_system": "kafka", "messaging_operation_name": "send", "messaging_client_id": "payments"}
    assert value("messaging_client_sent_messages_total", **sent, messaging_destination_name="payments") == 1
    assert (
        value(
            "messaging_client_operation_duration_seconds_count",
            **sent, messaging_operation_type="send", error_type="LogUnavailableError",
        )
        == 1
    )  # fmt: skip
    polled = {
        "messaging_system": "kafka", "messaging_operation_name": "poll", "messaging_consumer_group_name": "payments",
    }  # fmt: skip
    assert value("messaging_client_consumed_messages_total", **polled, messaging_destination_name="orders") == 2
    assert value("choreo_handled_total", service="payments") == 3
    assert value("choreo_emitted_total", service="payments") == 2
    assert value("choreo_inbox_drops_total", service="payments") == 1
    assert value("choreo_retries_total", service="payments", handler="pay", where="lane") == 1
    assert value("choreo_dead_letters_total", service="payments", handler="pay", kind="fatal") == 1
    assert value("choreo_compensations_total", service="payments", handler="undo", outcome="failed") == 1


def test_of_two_instances_counts_are_added_up_and_of_gauges_the_highest_is_shown(show):
    one, other = Durations(), Durations()
    one.add(0.001)
    other.add(0.001)
    labels = ("kafka", "send", "send", "s", "")
    for durations, handled, age in ((one, 1, 5.0), (other, 2, 3.0)):
        show(
            ("messaging_client_operation_duration_seconds", labels, durations),
            ("choreo_handled", ("s",), handled),
            ("choreo_outbox_age_seconds", ("s",), age),
        )
    assert value("choreo_handled_total", service="s") == 3
    assert value("choreo_outbox_age_seconds", service="s") == 5
    text = generate_latest(metrics.registry).decode()
    assert text.count("messaging_client_operation_duration_seconds_count{") == 1
    assert (
        len(re.findall(r"^messaging_client_operation_duration_seconds_bucket", text, re.MULTILINE)) == len(BOUNDS) + 1
    )


def test_types_of_errors_are_told_apart_up_to_a_number():
    stats = Stats()
    for number in range(50):
        stats.called("pay", "orders", 0.1, f"Error{number}")
    stats.called("other", "orders", 0.1, "Error99")
    assert len([key for key in stats.calls if key[0] == "pay"]) == 21
    assert sum(stats.calls["pay", "orders", "_OTHER"].counts) == 30
    assert ("other", "orders", "Error99") in stats.calls


def test_what_the_tracker_tells_replaces_what_it_has_told():
    counted = {
        "choreo_saga_started_total": {"type": "Numbered"},
        "choreo_saga_ended_total": {"type": "Numbered", "state": "completed"},
        "choreo_saga_duration_seconds_bucket": {"type": "Numbered", "state": "completed", "le": "5.0"},
        "choreo_tracker_records_total": {"topic": "numbered"},
    }
    saga_metrics.saga_started("Numbered")
    saga_metrics.saga_ended("Numbered", "completed", 2.0)
    saga_metrics.set_active({("OrderPlaced", "running"): 3, ("OrderPlaced", "late"): 1})
    saga_metrics.set_active({("OrderPlaced", "running"): 2})
    saga_metrics.set_owed({("payments", "refund"): 4})
    saga_metrics.set_dead_letters({("payments", "fatal"): 1}, {"payments": 60.0})
    saga_metrics.set_lag({"orders": 0.5})
    saga_metrics.taken_in("numbered", 7)
    assert {name: value(name, **labels) for name, labels in counted.items()} == dict(
        zip(counted, (1, 1, 1, 7), strict=True)
    )
    assert value("choreo_saga_active", type="OrderPlaced", state="running") == 2
    assert value("choreo_saga_active", type="OrderPlaced", state="late") is None
    assert value("choreo_compensation_owed", service="payments", handler="refund") == 4
    assert value("choreo_dead_letters_open", service="payments", kind="fatal") == 1
    assert value("choreo_dead_letters_oldest_age_seconds", service="payments") == 60
    assert value("choreo_tracker_lag_seconds", topic="orders") == 0.5
