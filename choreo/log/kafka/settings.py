"""librdkafka settings: what choreo sets, what the user may change, and the address without its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from choreo.errors import ConfigurationError

_COMMON = {
    "client.id": "choreo",
    "socket.keepalive.enable": "true",
    "reconnect.backoff.max.ms": "2000",
    # With its default, `rebootstrap`, a client of librdkafka 2.16 whose brokers were all away for a moment may never find
    # its coordinator again: a consumer does not come back to its group, and a transaction's offsets cannot be sent.
    "metadata.recovery.strategy": "none",
}

_CONSUMER = {
    # A profile for many small events: the client's own defaults hold 64 MB back per consumer.
    "queued.min.messages": "10000",
    "queued.max.messages.kbytes": "16384",
    "fetch.queue.backoff.ms": "50",
    "fetch.error.backoff.ms": "100",
}

_PRODUCER = {
    "linger.ms": "0",  # no hop waits for a timer; under load batches form by themselves behind the requests in flight
    "delivery.timeout.ms": "30000",
    "message.max.bytes": "100000000",  # the topic's max.message.bytes decides, not a second limit in the client
    "topic.metadata.propagation.max.ms": "3000",  # how long a topic may be unknown before appending to it fails
    "allow.auto.create.topics": "false",
}

# The promises of choreo.log.port rest on these.
_CONSUMER_KEEPS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "isolation.level": "read_committed",
}
_PRODUCER_KEEPS = {
    "enable.idempotence": "true",
    "acks": "all",
    # The partition that Java's default partitioner chooses; a gapless producer reckons with it too.
    "partitioner": "murmur2_random",
}
_KEPT = _CONSUMER_KEEPS | _PRODUCER_KEEPS

_GIVEN = {  # settings that choreo fills in from elsewhere, and where from
    "bootstrap.servers": "the address in CHOREO_LOG",
    "group.id": "the service's name",
    "message.timeout.ms": "another name of delivery.timeout.ms",
    "transactional.id": "the service's name and instance",
    "auto.offset.reset": "the consumer's start",
    "enable.partition.eof": "what the consumer is made for",
    "partition.assignment.strategy": "cooperative-sticky",
}


def parse(url: str, client_settings: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Split `kafka://host:9092,host:9092?setting=value` into its hosts and all client settings.

    Raises:
        ConfigurationError: no host, a password in the address, or a setting that is not the user's to change.
    """
    address, _, query = url.partition("://")[2].partition("?")
    hosts = address.rstrip("/")
    if "@" in hosts:
        remedy = "set sasl.username and sasl.password as client settings"
        raise ConfigurationError("a kafka:// address holds no user and password", remedy=remedy)
    if not hosts or "/" in hosts:
        raise ConfigurationError(f"kafka://{hosts} names no broker", remedy="write kafka://host:9092,host:9092")
    settings = dict(parse_qsl(query, keep_blank_values=True)) | dict(client_settings)
    for name, value in settings.items():
        if name in _GIVEN or _KEPT.get(name, value) != value:
            remedy = f"it is {_GIVEN.get(name, _KEPT.get(name))}"
            raise ConfigurationError(f"client setting {name} cannot be changed", remedy=remedy)
    return hosts, settings


def for_admin(hosts: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the client that asks about topics and offsets."""
    return {**_COMMON, **settings, "bootstrap.servers": hosts}


def for_consumer(
    hosts: str, settings: Mapping[str, str], group: str, start: str, *, ends: bool = False
) -> dict[str, Any]:
    """The settings of a member of `group`, or of a reader that only borrows the name."""
    named = {"client.id": group, "group.id": group, "auto.offset.reset": start}
    if settings.get("group.protocol", "classic") == "classic":
        named["partition.assignment.strategy"] = "cooperative-sticky"
    keeps = {**_CONSUMER_KEEPS, "enable.partition.eof": "true" if ends else "false"}
    return for_admin(hosts, {**_CONSUMER, **named, **settings, **keeps})


def for_producer(hosts: str, settings: Mapping[str, str], transactional_id: str | None) -> dict[str, Any]:
    """The settings of a producer: idempotent, acknowledged by all in-sync replicas."""
    named = {"transactional.id": transactional_id} if transactional_id else {}
    return for_admin(hosts, {**_PRODUCER, **settings, **named, **_PRODUCER_KEEPS})


def principal(settings: Mapping[str, str]) -> str:
    """Who these settings log in as, as Kafka's ACLs name it."""
    protocol = settings.get("security.protocol", "PLAINTEXT").upper()
    if protocol.startswith("SASL"):
        return f"User:{settings.get('sasl.username', '<the login>')}"
    return "User:<the certificate's subject>" if "ssl.certificate.location" in settings else "User:ANONYMOUS"
