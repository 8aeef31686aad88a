"""The log: where events lie. `open_log` picks the adapter by the address."""

from __future__ import annotations

from collections.abc import Mapping

from choreo.errors import ConfigurationError
from choreo.log.port import Consumer, Headers, Listener, Log, NewRecord, Producer, Record, Topic, TopicPartition

__all__ = [
    "Consumer", "Headers", "Listener", "Log", "NewRecord", "Producer", "Record", "Topic", "TopicPartition", "open_log",
]  # fmt: skip


def open_log(url: str, client_settings: Mapping[str, str] | None = None, *, make: bool = True) -> Log:
    """Name a log by its address; it connects when entered, with `async with`.

    Args:
        url: `sqlite:///path/log.db`, `kafka://host:9092,host:9092` or `memory://`.
        client_settings: librdkafka settings by their own names; for `kafka://` only.
        make: whether a file that is not there is made; who only reads has mistyped its name.

    Raises:
        ConfigurationError: no adapter knows this address.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from choreo.log.sqlite import SqliteLog

        return SqliteLog.at(url, make=make)
    if scheme == "kafka":
        from choreo.log.kafka import KafkaLog

        return KafkaLog.at(url, client_settings or {})
    if scheme == "memory":
        from choreo.log.memory import MemoryLog

        return MemoryLog()
    raise ConfigurationError(
        f"CHOREO_LOG is {url!r}, which names no log choreo knows",
        remedy="use sqlite:///.choreo/log.db, kafka://host:9092 or memory://",
    )
