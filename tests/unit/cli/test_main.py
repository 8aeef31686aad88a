import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

import pytest

from choreo import ChoreoError, ConfigurationError, DeclarationError
from choreo.cli.common import exit_code, json_text, print_rows
from choreo.errors import LogUnavailableError, RegistryUnavailableError, StoreUnavailableError, UnknownTopicError

HEAVY = ("confluent_kafka", "fastavro", "httpx2", "opentelemetry.sdk", "sqlite3", "starlette", "structlog")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"], ["topics", "tail", "--help"], ["runn"]])
def test_help_loads_nothing_heavy(args):
    code = f"""
import sys
from choreo.cli import main
main({args!r})
print("heavy:", *(m for m in {HEAVY!r} if m in sys.modules))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "heavy:"


def test_version(cli):
    assert cli("--version").out.strip() == f"choreo {version('choreo')}"


def test_help_shows_every_command_and_the_exit_codes(cli):
    text = " ".join(cli("--help").out.split())
    for command in ("run", "publish", "topics", "graph", "schema", "demo", "doctor"):
        assert f" {command} " in text
    for code in ("0 done", "1 it failed", "2 wrong usage", "3 the log", "130 interrupted"):
        assert code in text


@pytest.mark.parametrize(
    "command",
    [["run"], ["publish"], ["graph"], ["doctor"], ["topics", "create"], ["topics", "list"], ["topics", "tail"]],
)
def test_every_command_has_examples(cli, command):
    ended = cli(*command, "--help")
    assert ended.code == 0
    assert "Example" in ended.out
    assert f"choreo {' '.join(command)}" in ended.out.partition("Example")[2]


@pytest.mark.parametrize("command", ["schema", "demo"])
def test_commands_of_other_modules_are_put_in_when_they_are_asked_for(cli, command):
    ended = cli(command, "--help")
    assert ended.code == 0
    assert f"choreo {command} " in ended.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["runn"], "No such command 'runn'. Did you mean 'run'?"),
        (["graph", "--frmat", "json"], "No such option: --frmat"),
        (["graph", "cli_shop", "--format", "svg"], "'svg' is not one of"),
        (["publish"], "Missing argument 'TYPE'."),
        (["topics", "tail", "-n", "-1"], "Invalid value for '-n'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli, args, message):
    ended = cli(*args)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("choreo: ")
    assert message in ended.err
    assert "--help)" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["topics"]])
def test_nothing_asked_shows_help(cli, args):
    ended = cli(*args)
    assert "Commands" in ended.out
    assert ended.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChoreoError, 1),
        (DeclarationError, 1),
        (UnknownTopicError, 1),
        (ConfigurationError, 2),
        (LogUnavailableError, 3),
        (RegistryUnavailableError, 3),
        (StoreUnavailableError, 3),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error("x")) == code


def test_an_error_is_one_line(cli):
    ended = cli("graph", "cli_absent")
    assert ended.code == 2
    assert ended.err.startswith("choreo: there is no module 'cli_absent' (")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback_too(cli, how, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("CHOREO_DEBUG", "1")
    ended = cli(*["--debug"][: how == "option"], "graph", "cli_absent")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("choreo: there is no module 'cli_absent'")


def test_what_nobody_expected_is_one_line_too(cli, monkeypatch):
    monkeypatch.setattr("choreo.choreography.Choreography.to_text", lambda self: 1 / 0)
    ended = cli("graph", "cli_shop")
    assert ended.code == 1
    assert ended.err == "choreo: ZeroDivisionError: division by zero (choreo --debug ... shows where)\n"
    assert "Traceback" in cli("--debug", "graph", "cli_shop").err


def test_an_interrupt_is_code_130(cli, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("choreo.choreography.Choreography.to_text", interrupted)
    assert cli("graph", "cli_shop").code == 130


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CHOREO_STOP_GRACE", "soon", "CHOREO_STOP_GRACE is 'soon'"),
        ("CHOREO_KAFKA", "{", "a CHOREO_ variable cannot be read"),
        ("CHOREO_LOG", "amqp://x", "CHOREO_LOG is 'amqp://x', which names no log choreo knows"),
    ],
)
def test_settings_that_cannot_be(cli, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    ended = cli("topics", "list")
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_tables_are_tab_separated_unless_a_terminal_looks_on(capsys, monkeypatch):
    rows = [{"topic": "[bold]orders[/]", "partitions": 4}, {"topic": "payments", "partitions": 12}]
    print_rows(rows, as_json=False)
    assert capsys.readouterr().out == "[bold]orders[/]\t4\npayments\t12\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    print_rows(rows, as_json=False)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["topic            partitions", "[bold]orders[/]  4", "payments         12"]


def test_decimals_are_written_out():
    assert json_text({"a": [Decimal("0E-9"), {"b": Decimal("1E+3")}]}) == '{"a":["0.000000000",{"b":"1000"}]}'


def test_json_of_what_json_does_not_know():
    data = {"b": b"\xff", "d": Decimal("1.50"), "t": datetime(2026, 1, 1, tzinfo=UTC), "n": float("nan"), "o": object}
    assert json_text(data).startswith('{"b":"_w==","d":"1.50","t":"2026-01-01T00:00:00Z","n":"NaN","o":"<class')
