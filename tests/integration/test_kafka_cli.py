"""The command line against a real broker: topics as wished, and a service whose broker is not there (any more)."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from choreo.cli import main
from choreo.log import Topic, open_log
from tests.servers.process import free_ports, wait_until

pytestmark = pytest.mark.kafka

MODULE = """
from choreo import Event, Service

class Asked(Event, topic="asked-{name}", key="id"):
    id: str

oracle = Service("oracle-{name}")

@oracle.on(Asked)
async def answer(asked: Asked) -> None:
    pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of its own, whose service and topics nobody else has."""
    name = f"m{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name))
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_topics_become_what_is_wished(kafka_bootstrap, module, tmp_path, capsys):
    url = f"kafka://{kafka_bootstrap}"

    async def begin():
        async with open_log(url) as log:
            await log.create_topics([Topic(name=f"asked-{module}", partitions=2)])

    async def look():
        async with open_log(url) as log:
            names = [f"asked-{module}", f"dlq.oracle-{module}", f"retry.oracle-{module}"]
            return [(await log.topics())[name].partitions for name in names], await log.settings_of(names)

    asyncio.run(begin())
    file = tmp_path / "topics.toml"
    file.write_text('["asked-*"]\npartitions = 6\n"retention.ms" = 86400000\n')
    options = [module, "--log", url, "--file", str(file), "--set", "max.message.bytes=2000000"]
    assert main(["topics", "plan", *options, "--json"]) == 0
    planned = {row["topic"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in planned.items()} == {
        f"asked-{module}": "change",
        f"dlq.oracle-{module}": "create",
        f"retry.oracle-{module}": "create",
    }
    assert "partitions 2 -> 6 (keys move" in planned[f"asked-{module}"]["detail"]
    assert main(["topics", "apply", *options]) == 0
    wait_until(lambda: asyncio.run(look())[0] == [6, 4, 4], 30)
    _, settings = asyncio.run(look())
    assert settings[f"asked-{module}"]["retention.ms"] == "86400000"
    assert settings[f"dlq.oracle-{module}"]["retention.ms"] == "-1"
    assert {each["max.message.bytes"] for each in settings.values()} == {"2000000"}
    capsys.readouterr()
    assert main(["topics", "plan", *options, "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"ok"}


async def test_a_member_without_a_partition_has_joined_all_the_same(kafka_bootstrap):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with open_log(f"kafka://{kafka_bootstrap}", {"session.timeout.ms": "6000"}) as log:
        await log.create_topics([Topic(name=topic, partitions=1)])
        members = [log.consumer([topic], group=topic) for _ in range(2)]
        assert [member.joined for member in members] == [False, False]
        async with asyncio.timeout(60):
            while not all(member.joined for member in members):
                await members[0].poll(1, 0.05)
        assert sum(len(member.assignment) for member in members) == 1


def asked(port, path):
    """What the health port answers: the status and why not; None if nobody is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)["why"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["why"]
    except OSError:
        return None


def test_a_service_waits_for_its_broker_and_stops_in_time_without_it(kafka_broker, module, tmp_path):
    (port,) = free_ports(1)
    kafka_broker.kill()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")},
        "CHOREO_LOG": f"kafka://{kafka_broker.bootstrap}",
        "CHOREO_CREATE_TOPICS": "true",
        "CHOREO_LOG_FORMAT": "json",
        "CHOREO_STOP_GRACE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    code = "import sys; from choreo.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", module, "--health-port", str(port)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            wait_until(lambda: "Connection refused" in str(asked(port, "/ready")), 60)
            assert asked(port, "/live") == (200, [])
            kafka_broker.start()
            wait_until(lambda: asked(port, "/ready") == (200, []), 60)
            kafka_broker.freeze()
            wait_until(lambda: "the log gives no answer" in str(asked(port, "/ready")), 60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) in {0, 1}
        finally:
            process.kill()
    said = (tmp_path / "log").read_text()
    assert "cannot start yet, trying again" in said
    assert "Traceback" not in said
