"""Records as they lie in dead-letter topics: choreo's own, and as other systems write them."""

from __future__ import annotations

import struct

from choreo.log.port import Record

JAVA_TRACE = """org.springframework.kafka.listener.ListenerExecutionFailedException: Listener failed
\tat org.springframework.kafka.listener.KafkaMessageListenerContainer$ListenerConsumer.decorate(KafkaMessageListenerContainer.java:2969)
\tat java.base/java.lang.Thread.run(Thread.java:1583)
Caused by: com.acme.GatewayTimeout: no answer
\tat com.acme.Gateway.charge(Gateway.java:42)
\tat com.acme.Payments.lambda$listen$0(Payments.java:17)
\tat com.acme.Payments$$Lambda$1234/0x000000080.accept(Unknown Source)
\t... 12 more"""
"""A stack trace as the JVM prints it."""

EVENT = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_type", b"OrderPlaced"), ("ce_source", b"/shop"),
         ("ce_correlationid", b"saga-1"), ("content-type", b"application/json")]  # fmt: skip

CHOREO = [
    ("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"3"), ("__dlq.errors.offset", b"77"),
    ("__dlq.errors.group", b"payments"), ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"no answer"), ("choreo.dlq.exception", b"shop.GatewayTimeout"),
    ("choreo.dlq.fingerprint", b"00aa11bb22cc33dd"), ("choreo.dlq.stage", b"handle"),
    ("choreo.dlq.handler", b"charge"), ("choreo.dlq.failed-at", b"1700000002000"),
    ("choreo.dlq.first-failed", b"1700000001000"), ("choreo.dlq.id", b"d0d0"), ("choreo.dlq.kind", b"exhausted"),
    ("choreo.dlq.redrive-count", b"0"), ("choreo.dlq.parked", b"1"),
]  # fmt: skip
KIP_1191 = [
    ("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"3"), ("__dlq.errors.offset", b"77"),
    ("__dlq.errors.group", b"share-1"), ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"the consumer rejected it"),
]  # fmt: skip
CONNECT = [
    ("__connect.errors.topic", b"orders"), ("__connect.errors.partition", b"3"), ("__connect.errors.offset", b"77"),
    ("__connect.errors.connector.name", b"s3-sink"), ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"io.confluent.connect.avro.AvroConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", b"Failed to deserialize"),
    ("__connect.errors.exception.stacktrace", JAVA_TRACE.encode()),
]  # fmt: skip
STREAMS = [
    ("__streams.errors.exception", b"java.lang.IllegalStateException: bad state"),
    ("__streams.errors.message", b"bad state"), ("__streams.errors.stacktrace", JAVA_TRACE.encode()),
    ("__streams.errors.topic", b"orders"), ("__streams.errors.partition", b"3"), ("__streams.errors.offset", b"77"),
]  # fmt: skip
SPRING = [
    ("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 77)),
    ("kafka_dlt-original-timestamp", struct.pack(">q", 1_700_000_000_000)),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"), ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"com.acme.GatewayTimeout"), ("kafka_dlt-exception-message", b"no answer"),
    ("kafka_dlt-exception-stacktrace", JAVA_TRACE.encode()), ("retry_topic-attempts", struct.pack(">i", 4)),
]  # fmt: skip

FAMILIES = {"choreo": CHOREO, "kip-1191": KIP_1191, "connect": CONNECT, "streams": STREAMS, "spring": SPRING}


def lying(
    headers,
    *,
    topic="dlq.payments",
    partition=1,
    offset=5,
    key=b"o-1",
    value=b'{"id": "o-1"}',
    timestamp=1_700_000_000_000,
):
    """A record of a dead-letter topic, of an OrderPlaced in JSON."""
    return Record(topic, partition, offset, timestamp, key, value, [*EVENT, *headers])


def own(id_="d0d0", **changes):
    """A dead letter of choreo's: headers by their last words (`redrive_count="1"`), the rest as for `lying`."""
    place = {name: changes.pop(name) for name in ("topic", "partition", "offset", "key", "value") if name in changes}
    said = {"id": id_, **changes}
    names = {name.rpartition(".")[2].replace("-", "_"): name for name, _ in CHOREO}
    names |= {f"original_{part}": f"__dlq.errors.{part}" for part in ("topic", "partition", "offset")}
    told = dict(CHOREO) | {names[name]: str(value).encode() for name, value in said.items()}
    return lying([*told.items()], **place)


def resolution(of, kind="redriven", at=1_700_000_003_000, by="ada", why="fixed", **more):
    """What was done about a dead letter."""
    told = {"resolves": of, "resolution": kind, "by": by, "why": why, "at": str(at), **more}
    headers = [(f"choreo.dlq.{name}", text.encode()) for name, text in told.items()]
    return Record("dlq.payments", 1, 99, 1, b"o-1", None, headers)
