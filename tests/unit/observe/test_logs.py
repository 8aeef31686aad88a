import io
import json
import logging
import subprocess
import sys
import threading

import pytest
import structlog

from choreo.errors import ConfigurationError
from choreo.observe.logs import configure_logging


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch, capsys):
    """What is written to standard error, as a function; all set-up is undone afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.delenv("CHOREO_LOG_FORMAT", raising=False)
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_when_standard_error_is_no_terminal(stderr):
    configure_logging()
    structlog.get_logger("choreo.test").bind(service="payments").info("hello", amount=3)
    line = json.loads(stderr())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "hello", "level": "info", "logger": "choreo.test", "service": "payments", "amount": 3}


def test_lines_for_people_on_a_terminal(monkeypatch, stderr):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging()
    structlog.get_logger("choreo.test").info("hello")
    assert "hello" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


@pytest.mark.parametrize(("wanted", "is_json"), [("json", True), ("console", False)])
def test_the_environment_decides_before_the_terminal(monkeypatch, stderr, wanted, is_json):
    monkeypatch.setenv("CHOREO_LOG_FORMAT", wanted)
    configure_logging()
    structlog.get_logger("choreo.test").info("hello")
    assert stderr().startswith("{") is is_json


def test_the_argument_decides_before_the_environment(monkeypatch, stderr):
    monkeypatch.setenv("CHOREO_LOG_FORMAT", "json")
    configure_logging(json=False)
    structlog.get_logger("choreo.test").info("hello")
    assert not stderr().startswith("{")


def test_what_other_libraries_log_looks_the_same(stderr):
    configure_logging(json=True)
    logging.getLogger("httpx").warning("slow answer from %s", "registry")
    line = json.loads(stderr())
    assert (line["event"], line["level"], line["logger"]) == ("slow answer from registry", "warning", "httpx")


def test_levels_below_the_asked_one_are_left_out(stderr):
    configure_logging(json=True, level="warning")
    structlog.get_logger("choreo.test").info("quiet")
    logging.getLogger("other").info("quiet")
    structlog.get_logger("choreo.test").error("loud")
    assert [json.loads(line)["event"] for line in stderr().splitlines()] == ["loud"]


def test_an_exception_stays_on_its_line(stderr):
    configure_logging(json=True)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("choreo.test").exception("failed")
    (line,) = stderr().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_a_traceback_for_people_shows_no_local_variables(stderr):
    configure_logging(json=False)
    card = "4111" + "1111"
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("choreo.test").exception("failed")
    written = stderr()
    assert "ValueError: broken" in written
    assert card not in written


def test_context_of_the_task_is_on_every_line(stderr):
    configure_logging(json=True)
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        structlog.get_logger("choreo.test").info("inside")
    assert json.loads(stderr())["correlation_id"] == "c-1"


def test_set_up_twice_writes_once(stderr):
    configure_logging(json=True)
    configure_logging(json=True)
    structlog.get_logger("choreo.test").info("once")
    assert len(stderr().splitlines()) == 1


def test_a_stream_that_takes_no_lines_stops_nobody(monkeypatch, stderr):
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    configure_logging(json=True)
    closed.close()
    structlog.get_logger("choreo.test").info("unheard")


def test_lines_of_threads_and_of_other_libraries_do_not_mix(stderr):
    configure_logging(json=True)
    mine, theirs = structlog.get_logger("choreo.test"), logging.getLogger("other")

    def write(number):
        for _ in range(200):
            (mine if number % 2 else theirs).warning("x" * 500)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(line)["event"] for line in stderr().splitlines()] == ["x" * 500] * 800


def test_an_unknown_level_names_the_known_ones(stderr):
    with pytest.raises(ConfigurationError, match=r"log level 'loud' is unknown .*use debug, info"):
        configure_logging(level="loud")


def test_an_unknown_format_names_the_known_ones(monkeypatch, stderr):
    monkeypatch.setenv("CHOREO_LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match=r"CHOREO_LOG_FORMAT is 'xml' .*json or console"):
        configure_logging()


@pytest.mark.parametrize(("module", "absent"), [("logs", "prometheus_client"), ("metrics", "structlog")])
def test_each_part_loads_only_what_it_needs(module, absent):
    code = f"import sys, choreo.observe.{module}; sys.exit({absent!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
