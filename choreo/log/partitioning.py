"""What a topic lets in, and where in it a record goes: rules that the embedded logs take from Kafka."""

from __future__ import annotations

import re
from functools import lru_cache
from struct import unpack_from
from typing import NamedTuple

from choreo.errors import ConfigurationError, NotOwnerError, RecordTooLargeError, UnknownTopicError
from choreo.log.port import NewRecord, Topic, TopicPartition

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_SEED, _M, _32_BITS = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF  # of murmur2
_MAX_MESSAGE_BYTES = "1048588"  # Kafka's default of max.message.bytes
_RECORD_OVERHEAD, _HEADER_OVERHEAD = 61 + 21, 10  # a batch of one record, as Kafka estimates it before it packs


class Limits(NamedTuple):
    """What a topic's settings mean to an embedded log; `retention_ms` is None where everything is kept."""

    partitions: int
    max_message_bytes: int
    retention_ms: int | None


def limits_of(topic: Topic) -> Limits:
    """Read a topic's settings.

    Raises:
        ConfigurationError: its name, partition count or a setting is not legal.
    """
    if not _TOPIC.match(topic.name) or topic.name in {".", ".."}:
        raise ConfigurationError(
            f"topic {topic.name!r} has no legal Kafka name", remedy="use 1 to 249 letters, digits, '.', '_' or '-'"
        )
    if topic.partitions < 1:
        raise ConfigurationError(
            f"topic {topic.name} asks for {topic.partitions} partitions", remedy="ask for 1 or more"
        )
    try:
        max_message_bytes = int(topic.settings.get("max.message.bytes", _MAX_MESSAGE_BYTES))
        retention_ms = int(topic.settings.get("retention.ms", "-1"))
    except ValueError as error:
        raise ConfigurationError(
            f"topic {topic.name} has a setting that is no number", why=str(error), remedy="write it in digits"
        ) from None
    return Limits(topic.partitions, max_message_bytes, None if retention_ms < 0 else retention_ms)


def partition_of(record: NewRecord, limits: Limits, turn: int) -> int:
    """Where a record goes; `turn`, any number, decides for records without a key.

    Raises:
        RecordTooLargeError, UnknownTopicError: its topic does not take it.
    """
    size = _RECORD_OVERHEAD + len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value) + _HEADER_OVERHEAD
    if size > limits.max_message_bytes:
        raise RecordTooLargeError(
            f"a record of {size:,} bytes is too large for topic {record.topic}",
            why=f"its max.message.bytes is {limits.max_message_bytes:,}",
            remedy="send a reference to the data instead of the data, or raise max.message.bytes on the topic",
        )
    if record.partition is not None:
        if not 0 <= record.partition < limits.partitions:
            raise unknown_partition(TopicPartition(record.topic, record.partition))
        return record.partition
    return turn % limits.partitions if record.key is None else partition_for(record.key, limits.partitions)


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 of `data`, unsigned, with the seed Kafka uses.

    Source: Austin Appleby's MurmurHash2 (public domain), as in `org.apache.kafka.common.utils.Utils.murmur2`.
    """
    length = len(data)
    words = length >> 2
    h = _SEED ^ length
    for word in unpack_from(f"<{words}I", data):
        k = word * _M & _32_BITS
        h = (h * _M & _32_BITS) ^ ((k ^ k >> 24) * _M & _32_BITS)
    if length & 3:
        h = (h ^ int.from_bytes(data[words << 2 :], "little")) * _M & _32_BITS
    h = (h ^ h >> 13) * _M & _32_BITS
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition, from 0 to `partitions` - 1, of records with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def unknown_partition(partition: TopicPartition) -> UnknownTopicError:
    """The error for a partition that does not exist."""
    name, number = partition
    return UnknownTopicError(
        f"topic {name} has no partition {number}", remedy="see how many it has: choreo topics list"
    )


def not_owner(partition: TopicPartition, group: str | None) -> NotOwnerError:
    """The error for a partition that a consumer does not own."""
    return NotOwnerError(
        f"{partition.topic}/{partition.partition} is not this consumer's",
        why=f"group {group} has given it to another member, or has not given it out yet",
        remedy="drop the work on it: its owner reads it again from the committed offset",
    )
