"""What topics are wanted, against what exists; and which rights services need. Decisions only, no log is asked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from choreo.choreography import dead_letter_topic, retry_topic, topic_settings
from choreo.errors import ConfigurationError
from choreo.log import Topic
from choreo.log.kafka.rights import Right
from choreo.service import Service

State = Literal["create", "change", "ok", "cannot"]
_PARTITIONS = 4


@dataclass(frozen=True)
class Wish:
    """What a topic is to be; None is whatever it is, or the log's own default."""

    partitions: int | None = None
    replication: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def topic(self, name: str) -> Topic:
        """As it is created."""
        copies = -1 if self.replication is None else self.replication
        return Topic(
            name=name, partitions=self.partitions or _PARTITIONS, replication=copies, settings=dict(self.settings)
        )


class Step(NamedTuple):
    """What is to be done about one topic: `wanted` is what to create, or to change it to."""

    topic: str
    state: State
    detail: str
    wanted: Topic | None = None


def wishes(names: Sequence[str], general: Wish, file: Path | None) -> dict[str, Wish]:
    """The wish for each topic: what its kind needs, then the general one, then the file's tables in their order.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    tables = _tables(file) if file else {}
    found = {}
    for name in names:
        wish = replace(general, settings=topic_settings(name) | dict(general.settings))
        for pattern, table in tables.items():
            if fnmatchcase(name, pattern):
                wish = _with(wish, table)
        found[name] = wish
    return found


def _tables(file: Path) -> dict[str, dict[str, Any]]:
    shape = '["orders.*"] with partitions = 12, replication = 3, "retention.ms" = 86400000'
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read", why=str(error), remedy=f"write tables: {shape}") from error
    for name, table in tables.items():
        counts = [table.get(count, 1) for count in ("partitions", "replication")] if isinstance(table, dict) else [0]
        if not all(type(count) is int and count > 0 for count in counts):
            raise ConfigurationError(f"{file}: {name} is no topic's table", remedy=f"write tables: {shape}")
    return tables


def _with(wish: Wish, table: Mapping[str, Any]) -> Wish:
    settings = {name: _text(value) for name, value in table.items() if name not in {"partitions", "replication"}}
    return Wish(
        table.get("partitions", wish.partitions),
        table.get("replication", wish.replication),
        {**wish.settings, **settings},
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def compare(name: str, wish: Wish, existing: Topic | None) -> Step:
    """What has to be done. `existing` has the settings in force."""
    wanted = wish.topic(name)
    if existing is None:
        copies = "" if wish.replication is None else f", replication {wish.replication}"
        set_to = "".join(f", {setting}={value}" for setting, value in wish.settings.items())
        return Step(name, "create", f"{wanted.partitions} partitions{copies}{set_to}", wanted)
    if obstacles := _obstacles(wish, existing):
        return Step(name, "cannot", "; ".join(obstacles))
    has, partitions = existing.settings, wish.partitions or existing.partitions
    settings = {setting: value for setting, value in wish.settings.items() if has.get(setting) != value}
    changes = [f"{setting} {has.get(setting, 'unset')} -> {value}" for setting, value in settings.items()]
    if partitions > existing.partitions:
        moves = "keys move: what a key has in its old partition may be handled after what comes in its new one"
        changes.append(f"partitions {existing.partitions} -> {partitions} ({moves})")
    if not changes:
        return Step(name, "ok", f"{existing.partitions} partitions")
    return Step(name, "change", "; ".join(changes), Topic(name=name, partitions=partitions, settings=settings))


def _obstacles(wish: Wish, existing: Topic) -> list[str]:
    found = []
    if wish.partitions is not None and wish.partitions < existing.partitions:
        found.append(f"it has {existing.partitions} partitions, {wish.partitions} wanted: none can be taken away")
    if wish.replication not in {None, existing.replication}:
        wanted = f"{existing.replication} copies, {wish.replication} wanted"
        found.append(f"it has {wanted}: kafka-reassign-partitions changes that")
    return found


def rights_of(service: Service) -> list[Right]:
    """The least that a service has to be allowed, on topics that exist."""
    reads = set(service.topics)
    emitted = (event for handler in service.handlers.values() for event in handler.emits.classes)
    writes = {topic for event in emitted for topic in event.contract.topics}
    writes.add(dead_letter_topic(service.name))
    if not service.transactional:
        reads.add(retry_topic(service.name))
        writes.add(retry_topic(service.name))
    rights = [Right("Read", "topic", name) for name in sorted(reads)]
    rights += [Right("Write", "topic", name) for name in sorted(writes)]
    rights.append(Right("Read", "group", service.name))
    if service.transactional:
        rights.append(Right("Write", "transactional-id", f"{service.name}-", prefixed=True))
    return rights
