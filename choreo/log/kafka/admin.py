"""Topics as they are configured: reading and changing that, by the admin client. Everything here blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined] # public
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
)

from choreo.log.port import Topic


def settings_of(admin: AdminClient, names: Sequence[str], timeout: float) -> dict[str, dict[str, str]]:
    """The settings in force of each topic, its own or the cluster's."""
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    answers: Mapping[Any, Future[Any]] = admin.describe_configs(asked, request_timeout=timeout) if asked else {}
    return {
        resource.name: {name: entry.value for name, entry in answer.result().items() if entry.value is not None}
        for resource, answer in answers.items()
    }


def change(admin: AdminClient, topic: Topic, partitions: int, timeout: float) -> None:
    """Set a topic's settings, those not named staying as they are; and raise its partitions from that many."""
    if topic.settings:
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in topic.settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=entries)
        for answer in admin.incremental_alter_configs([resource], request_timeout=timeout).values():
            answer.result()
    if topic.partitions > partitions:
        more = NewPartitions(topic.name, topic.partitions)
        for answer in admin.create_partitions([more], request_timeout=timeout).values():
            answer.result()


def members_of(admin: AdminClient, group: str, timeout: float) -> int:
    """How many members a consumer group has, of either protocol; none if nobody knows it."""
    return len(admin.describe_consumer_groups([group], request_timeout=timeout)[group].result().members)
