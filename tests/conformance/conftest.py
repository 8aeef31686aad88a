"""The logs that the suite runs over, and what the run says it has covered."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from choreo.log import open_log
from choreo.log.memory import MemoryLog
from tests.conformance.log_world import PATIENCE, World

_LOGS = [
    "memory",
    "sqlite",
    "mock",
    pytest.param("kafka", marks=pytest.mark.kafka),
]
_QUICK_KAFKA = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}
_QUICK_MOCK = {"group.protocol": "consumer"}  # its classic groups take 3 seconds to begin


@pytest.fixture(params=_LOGS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    make = {"memory": _memory, "sqlite": _sqlite, "mock": _mock, "kafka": _kafka}[request.param]
    world = make(request, tmp_path)
    async with world.log:
        request.node.user_properties.append(("log", request.param))
        try:
            yield world
        finally:
            async with asyncio.timeout(PATIENCE):  # closing may not hang, whatever the test has done
                await world.close()


def _memory(request: pytest.FixtureRequest, folder: Path) -> World:
    log = MemoryLog()
    return World("memory", log, log.capabilities, lambda: log, session_timeout=0, many=100_000)


def _sqlite(request: pytest.FixtureRequest, folder: Path) -> World:
    url = f"sqlite:///{folder}/log.db"
    log = open_log(url)
    command = (url, "{}")
    return World(
        "sqlite", log, log.capabilities, lambda: open_log(url), session_timeout=3, many=100_000, command=command
    )


def _kafka(request: pytest.FixtureRequest, folder: Path) -> World:
    url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    log = open_log(url, _QUICK_KAFKA)
    command = (url, json.dumps(_QUICK_KAFKA))
    return World(
        "kafka",
        log,
        log.capabilities,
        lambda: open_log(url, _QUICK_KAFKA),
        session_timeout=6,
        many=100_000,
        command=command,
    )


def _mock(request: pytest.FixtureRequest, folder: Path) -> World:
    from confluent_kafka import Producer

    bootstrap = request.getfixturevalue("mock_bootstrap")
    log = open_log(f"kafka://{bootstrap}", _QUICK_MOCK)
    # What the mock cluster lacks: admin requests, enforced topic settings, offsets of committed transactions; and its
    # expiry of silent members is not Kafka's.
    able = dataclasses.replace(
        log.capabilities, topic_creation=False, transactions=False, retention=False, several_processes=False
    )

    def make_topic(name: str) -> None:
        Producer({"bootstrap.servers": bootstrap}).list_topics(name, timeout=10)

    return World(
        "mock",
        log,
        able,
        lambda: open_log(f"kafka://{bootstrap}", _QUICK_MOCK),
        session_timeout=1,
        many=5_000,
        make_topic=make_topic,
    )
