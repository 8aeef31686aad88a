import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.servers.process import free_ports, wait_until

SLOW = """
import asyncio
from cli_shop import OrderPlaced
from choreo import Service

slow = Service("slow")

@slow.on(OrderPlaced)
async def wait(order: OrderPlaced) -> None:
    print("handling", flush=True)
    await asyncio.sleep(3600)
"""

STUCK = """
import time
from cli_shop import OrderPlaced
from choreo import Service

stuck = Service("stuck")

@stuck.on(OrderPlaced)
def hang(order: OrderPlaced) -> None:
    print("handling", flush=True)
    time.sleep(3600)
"""


def asked(port, path):
    """What the health port answers: the status and why not; None if nobody is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)["why"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["why"]
    except OSError:
        return None


def logged(process, event):
    """Reads the process's log until this event; returns the lines read."""
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line) if line.startswith("{") else {"event": line.strip()})
        if event in lines[-1]["event"]:
            return lines
    raise AssertionError(f"{event!r} did not come: {lines}")


def handled(cli, spawn, count):
    """Waits until `payments` has handled this many events; returns their sagas."""
    assert cli("topics", "create", "cli_shop").code == 0
    follower = spawn("topics", "tail", "payments", "-f", "--json")
    sagas = set()
    while len(sagas) < count:  # a hand-over may publish an event again, with the same id
        sagas.add(json.loads(follower.stdout.readline())["correlation_id"])
    return sagas


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_services_handle_events_until_a_signal(cli, placed, spawn, number):
    process = spawn("run", "cli_shop")
    assert handled(cli, spawn, 3) == set(placed)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    assert "choreo: stopping; a second signal ends it at once" in err
    assert '"event": "service started"' in err
    assert "Traceback" not in err


def test_the_log_level_can_be_chosen(cli, placed, spawn):
    process = spawn("run", "cli_shop", "--log-level", "error")
    assert handled(cli, spawn, 3) == set(placed)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == "choreo: stopping; a second signal ends it at once\n"


def test_one_service_of_a_module(cli, placed, spawn):
    process = spawn("run", "cli_shop:mail")
    services = {line["service"] for line in logged(process, "service started") if "service" in line}
    process.terminate()
    _, rest = process.communicate(timeout=30)
    assert services == {"mail"}
    assert "payments" not in {json.loads(line).get("service") for line in rest.splitlines() if line.startswith("{")}


def test_a_second_signal_ends_it_at_once(cli, placed, spawn, project):
    (project / "cli_slow.py").write_text(SLOW)
    process = spawn("run", "cli_slow")
    assert process.stdout.readline() == "handling\n"
    process.terminate()
    logged(process, "a second signal ends it at once")
    process.terminate()
    assert process.wait(timeout=30) == 130


def test_missing_topics_are_named_where_they_are_not_created(cli):
    ended = cli("run", "cli_shop", "--no-create-topics")
    assert ended.code == 1
    assert "dlq.mail, dlq.payments, orders, payments" in ended.err
    assert "choreo topics create" in ended.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "no module is named"),
        (["cli_shop", "--log-level", "loud"], 2, "log level 'loud' is unknown"),
    ],
)
def test_a_start_that_cannot_be(cli, args, code, message):
    ended = cli("run", *args)
    assert ended.code == code
    assert message in ended.err.splitlines()[-1]


def test_a_store_that_nobody_knows_is_named(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_STORE", "mysql://x")
    ended = cli("run", "cli_shop")
    assert ended.code == 2
    assert "mysql://" in ended.err.splitlines()[-1]


def test_a_process_that_cannot_start_yet_says_why_and_stops_when_told(project, spawn):
    (port,) = free_ports(1)
    process = spawn("run", "cli_shop", "--registry", "http://127.0.0.1:1", "--health-port", port)
    waiting = logged(process, "cannot start yet, trying again")[-1]
    assert "the registry http://127.0.0.1:1 gave no answer" in waiting["reason"]
    assert asked(port, "/live") == (200, [])
    status, (why,) = asked(port, "/ready")
    assert (status, why) == (503, waiting["reason"])
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_the_health_port_tells_when_the_services_are_ready(placed, spawn):
    (port,) = free_ports(1)
    process = spawn("run", "cli_shop", "--health-port", port)
    wait_until(lambda: asked(port, "/ready") == (200, []), 60)
    assert asked(port, "/live") == (200, [])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        text = answer.read().decode()
    assert re.search(r'^choreo_partitions\{service="\w+"\} [1-9]', text, re.MULTILINE), text
    assert "choreo_saga_started" not in text, "those are the tracker's"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert asked(port, "/live") is None


def test_a_health_port_that_is_taken_is_named(cli, placed, spawn):
    (port,) = free_ports(1)
    spawn("run", "cli_shop", "--health-port", port)
    wait_until(lambda: asked(port, "/live") is not None, 60)
    ended = cli("run", "cli_shop", "--health-port", port)
    assert ended.code == 2
    assert f"health port 127.0.0.1:{port}" in ended.err


@pytest.mark.parametrize("source", [SLOW, STUCK], ids=["a coroutine", "a thread"])
def test_a_handler_that_hangs_holds_up_no_stop(placed, spawn, project, monkeypatch, source):
    (project / "cli_hangs.py").write_text(source)
    monkeypatch.setenv("CHOREO_STOP_GRACE", "0.5")
    process = spawn("run", "cli_hangs")
    assert process.stdout.readline() == "handling\n"
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_several_processes_share_the_work_and_one_that_dies_is_started_again(cli, placed, spawn, monkeypatch):
    monkeypatch.setenv("CHOREO_LOG_FORMAT", "json")
    port = next(port for port in free_ports(20) if asked(port + 1, "/live") is None)
    process = spawn("run", "cli_shop", "--processes", "2", "--health-port", port)
    assert handled(cli, spawn, 3) == set(placed)
    for number in range(2):
        wait_until(lambda number=number: asked(port + number, "/ready") == (200, []), 60)
    children = [int(pid) for pid in _children(process.pid)]
    assert len(children) == 2
    os.kill(children[0], signal.SIGKILL)
    line = logged(process, "process ended, starting it again")[-1]
    assert line["code"] == -signal.SIGKILL
    wait_until(lambda: asked(port + line["process"], "/ready") == (200, []), 60)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err.count("choreo: stopping") == 1
    stopped = [json.loads(line) for line in err.splitlines() if "service stopped" in line]
    assert {line["process"] for line in stopped} == {0, 1}


def test_processes_end_when_their_supervisor_is_killed(placed, spawn):
    process = spawn("run", "cli_shop", "--processes", "2")
    wait_until(lambda: len(_children(process.pid)) == 2, 60)
    children = _children(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(_runs(pid) for pid in children), 60)


def test_what_no_process_can_do_ends_them_all(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_STORE", "mysql://x")
    assert cli("run", "cli_shop", "--processes", "2").code == 2


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
