"""The logs that the suite runs over, and what the run says it has covered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from choreo.log import open_log
from choreo.log.memory import MemoryLog
from tests.conformance.log_world import PATIENCE, World

_ALL = {"several_processes", "transactions", "topic_creation", "time_lookup", "prompt_retention", "members_told"}
_LOGS = {
    "memory": _ALL - {"several_processes"},
    "sqlite": _ALL,
    # The mock cluster lacks admin requests, topic settings, offsets of committed transactions and look-ups by time;
    # and its expiry of silent members is not Kafka's.
    "mock": set[str](),
    # Kafka deletes whole segments, in minutes.
    "kafka": _ALL - {"prompt_retention"},
}
_QUICK_KAFKA = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}
_QUICK_MOCK = {"group.protocol": "consumer"}  # its classic groups take 3 seconds to begin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of the log runs over every log that has the abilities it is marked to need; nothing is skipped for lack of one."""
    if "world" in metafunc.fixturenames and metafunc.definition.path.name.startswith("test_log"):
        needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
        able = [name for name, abilities in _LOGS.items() if needed <= abilities]
        marked = [pytest.param(name, marks=pytest.mark.kafka) if name == "kafka" else name for name in able]
        metafunc.parametrize("world", marked, indirect=True)


@pytest.fixture
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
    return World("memory", log, lambda: log, session_timeout=0, many=100_000)


def _sqlite(request: pytest.FixtureRequest, folder: Path) -> World:
    url = f"sqlite:///{folder}/log.db"
    log = open_log(url)
    command = (url, "{}")
    return World("sqlite", log, lambda: open_log(url), session_timeout=3, many=100_000, command=command)


def _kafka(request: pytest.FixtureRequest, folder: Path) -> World:
    url = f"kafka://{request.getfixturevalue('kafka_bootstrap')}"
    log = open_log(url, _QUICK_KAFKA)
    command = (url, json.dumps(_QUICK_KAFKA))
    return World(
        "kafka",
        log,
        lambda: open_log(url, _QUICK_KAFKA),
        session_timeout=6,
        many=100_000,
        command=command,
    )


def _mock(request: pytest.FixtureRequest, folder: Path) -> World:
    from confluent_kafka import Producer

    bootstrap = request.getfixturevalue("mock_bootstrap")
    log = open_log(f"kafka://{bootstrap}", _QUICK_MOCK)

    def make_topic(name: str) -> None:
        Producer({"bootstrap.servers": bootstrap}).list_topics(name, timeout=10)

    return World(
        "mock",
        log,
        lambda: open_log(f"kafka://{bootstrap}", _QUICK_MOCK),
        session_timeout=1,
        many=5_000,
        make_topic=make_topic,
    )
