import json

import structlog
from confluent_kafka import KafkaError
from prometheus_client import generate_latest

from choreo.log.kafka import telemetry
from choreo.observe.metrics import registry


def test_an_outage_is_told_once_and_so_is_its_end():
    outage = telemetry.Outage("consumer 'g'")
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            outage.seen(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        outage.over()
        outage.over()
    assert [(line["event"], line["client"]) for line in lines] == [
        ("kafka_unreachable", "consumer 'g'"),
        ("kafka_reachable_again", "consumer 'g'"),
    ]
    assert lines[0]["reason"] == "1/1 brokers are down"


def test_a_second_outage_is_told_again():
    outage = telemetry.Outage("c")
    with structlog.testing.capture_logs() as lines:
        outage.seen(KafkaError(KafkaError._TRANSPORT))
        outage.over()
        outage.seen(KafkaError(KafkaError._TRANSPORT))
    assert [line["event"] for line in lines].count("kafka_unreachable") == 2


def test_log_lines_keep_their_level_but_for_those_told_otherwise():
    logger = telemetry.ClientLogger()
    with structlog.testing.capture_logs() as lines:
        logger.log(30, "%s [%s] %s", "GETPID", "rdkafka#producer-1", "Failed to acquire a PID")
        logger.log(40, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "Connection refused")
        logger.log(
            30, "%s [%s] %s", "CONFWARN", "p", "acks is a producer property and will be ignored by this consumer"
        )
        logger.log(30, "%s [%s] %s", "CONFWARN", "p", "deprecated")
    assert [line["log_level"] for line in lines] == ["debug", "debug", "debug", "warning"]
    assert lines[0]["facility"] == "GETPID"


def test_statistics_are_off_unless_asked_for():
    assert "stats_cb" not in telemetry.callbacks({"client.id": "x"}, print)
    assert "stats_cb" in telemetry.callbacks({"client.id": "x", "statistics.interval.ms": "1000"}, print)


def test_statistics_become_gauges():
    partition = {"partition": 3, "consumer_lag": 42}
    unassigned = {"partition": -1, "consumer_lag": -1}
    statistics = {
        "client_id": "unit",
        "type": "consumer",
        "replyq": 5,
        "msg_cnt": 2,
        "brokers": {
            "b": {"nodeid": 1, "nodename": "host:9092", "state": "UP", "rtt": {"avg": 1500}},
            "boot": {"nodeid": -1, "nodename": "seed:9092", "state": "DOWN", "rtt": {"avg": 0}},
        },
        "topics": {"orders": {"topic": "orders", "partitions": {"3": partition, "-1": unassigned}}},
    }
    telemetry._measure(json.dumps(statistics))
    text = generate_latest(registry).decode()
    assert 'choreo_kafka_consumer_lag{client="unit",partition="3",topic="orders"} 42.0' in text
    assert 'choreo_kafka_queue{client="unit",kind="consumer"} 7.0' in text
    assert 'choreo_kafka_broker_up{broker="host:9092",client="unit"} 1.0' in text
    assert 'choreo_kafka_round_trip_seconds{broker="host:9092",client="unit"} 0.0015' in text
    assert "seed:9092" not in text
    assert 'partition="-1"' not in text
