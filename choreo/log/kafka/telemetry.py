"""What a librdkafka client says about itself: log lines to structlog, outages once, statistics to metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError

from choreo.errors import AccessError

log = structlog.get_logger("choreo.kafka")

_QUIET = 30.0  # seconds without a new error after which an outage has ended
_ALREADY_TOLD = ("FAIL", "ERROR", "FATAL", "SSL", "TXNERR", "GETPID")  # facilities whose lines also arrive as errors


class ClientLogger:
    """Takes librdkafka's log lines as if it were a `logging.Logger`.

    Attributes:
        failure: the last line about a failed connection: that a broker closed it is told nowhere else.
    """

    def __init__(self) -> None:
        self.failure = ""

    def filter(self, _record: object) -> bool:
        """Let all through; the client asks for this method to know a logger."""
        return True

    def log(self, level: int, _form: str, facility: str, client: str, line: str) -> None:
        """One line; those that are told otherwise, or are about another kind of client, are kept for debugging."""
        known = "and will be ignored by this" in line or "is experimental" in line
        foreign = facility == "CONFWARN" and known
        level = 10 if foreign or facility in _ALREADY_TOLD else level
        if facility == "FAIL":
            self.failure = line
        log.log(level, line, facility=facility, client=client)


class Outage:
    """Tells of passing trouble once per outage instead of once per attempt."""

    def __init__(self, client: str) -> None:
        self._client = client
        self._last: float | None = None
        self._refused: dict[str, float] = {}

    def seen(self, error: KafkaError) -> None:
        """An error that will pass."""
        now = time.monotonic()
        if self._last is None or now - self._last > _QUIET:
            log.warning("kafka_unreachable", client=self._client, reason=error.str())
        self._last = now

    def refused(self, reason: AccessError) -> None:
        """A right is lacking: told every half minute, until it is granted and the client's own next try succeeds."""
        now = time.monotonic()
        if now - self._refused.get(str(reason), -_QUIET) >= _QUIET:
            log.error("kafka_refuses", client=self._client, reason=str(reason))
            self._refused[str(reason)] = now

    def over(self) -> None:
        """Something worked."""
        if self._last is not None:
            log.info("kafka_reachable_again", client=self._client)
            self._last = None


def callbacks(
    settings: dict[str, Any], on_error: Callable[[KafkaError], None], logger: ClientLogger | None = None
) -> dict[str, Any]:
    """`settings` with the callbacks by which a client reports."""
    reporting = {**settings, "logger": logger or ClientLogger(), "error_cb": on_error}
    if settings.get("statistics.interval.ms", "0") != "0":
        reporting["stats_cb"] = _measure
    return reporting


def _measure(statistics: str) -> None:
    """Set the gauges from one of librdkafka's statistics documents (STATISTICS.md of librdkafka)."""
    # Prometheus is loaded only where statistics are asked for.
    from choreo.observe.metrics import kafka_broker_up, kafka_lag, kafka_queue, kafka_round_trip

    document = json.loads(statistics)
    client = document["client_id"]
    kafka_queue.labels(client, document["type"]).set(document["replyq"] + document["msg_cnt"])
    for broker in document["brokers"].values():
        if broker["nodeid"] >= 0:
            kafka_broker_up.labels(client, broker["nodename"]).set(broker["state"] == "UP")
            kafka_round_trip.labels(client, broker["nodename"]).set(broker["rtt"]["avg"] / 1e6)
    for topic in document["topics"].values():
        for partition in topic["partitions"].values():
            if partition["partition"] >= 0 and partition["consumer_lag"] >= 0:
                lag = kafka_lag.labels(client, topic["topic"], str(partition["partition"]))
                lag.set(partition["consumer_lag"])
