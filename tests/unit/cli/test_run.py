import json
import signal

import pytest

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
    return {json.loads(follower.stdout.readline())["correlation_id"] for _ in range(count)}


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
        (["cli_shop", "--registry", "http://127.0.0.1:1"], 3, "the registry http://127.0.0.1:1 gave no answer"),
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
    assert "mysql://x" in ended.err.splitlines()[-1]
