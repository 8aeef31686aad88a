"""Servers as fixtures: real ones where this machine can start them, librdkafka's mock cluster everywhere."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

import hypothesis
import pytest
import structlog

from tests.scheduling import Scheduling, turn
from tests.servers.apicurio import ApicurioServer
from tests.servers.downloads import ServerMissingError, in_ci
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_cluster import KafkaCluster
from tests.servers.mock_kafka import mock_kafka
from tests.servers.postgres import PostgresServer
from tests.servers.process import Server

T = TypeVar("T", bound="Server | KafkaCluster")

hypothesis.settings.register_profile("untimed", deadline=None)  # this machine's speed is not what is tested
hypothesis.settings.load_profile("untimed")


def started(make: Callable[[], T]) -> Iterator[T]:
    """A started server; where it is missing a reason to skip, but under CI=true a failure."""
    try:
        server = make()
    except ServerMissingError as error:
        if in_ci():
            raise
        pytest.skip(f"a server is missing: {error}")
    with server:
        yield server


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """`host:port` of a real Kafka broker that all tests share: CHOREO_TEST_KAFKA, or one started here."""
    if address := os.environ.get("CHOREO_TEST_KAFKA"):
        yield address
        return
    for server in started(KafkaServer):
        yield server.bootstrap


@pytest.fixture(scope="session")
def _fault_broker() -> Iterator[Server]:
    yield from started(KafkaServer)


@pytest.fixture
def kafka_broker(_fault_broker: Server) -> Server:
    """A broker of its own for tests that stop, kill, freeze or restart it; running whenever a test begins."""
    _fault_broker.ensure_running()
    return _fault_broker


@pytest.fixture(scope="session")
def registry_url() -> Iterator[str]:
    """The Confluent API of a real registry: CHOREO_TEST_REGISTRY, or an Apicurio started here."""
    if address := os.environ.get("CHOREO_TEST_REGISTRY"):
        yield address
        return
    for server in started(ApicurioServer):
        yield server.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a real PostgreSQL that all tests share: CHOREO_TEST_POSTGRES, or one started here."""
    if address := os.environ.get("CHOREO_TEST_POSTGRES"):
        yield address
        return
    for server in started(PostgresServer):
        assert isinstance(server, PostgresServer)
        yield server.url


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for tests that stop, kill, freeze or restart it; they see to it that it runs when they begin."""
    for server in started(PostgresServer):
        assert isinstance(server, PostgresServer)
        yield server


@pytest.fixture(scope="session")
def mock_bootstrap() -> Iterator[str]:
    """`host:port` list of librdkafka's mock cluster, alive as long as the session."""
    with mock_kafka() as address:
        yield address


@pytest.fixture(autouse=True)
def _short_tracebacks() -> None:
    """Those of structlog's own default, with all local variables in boxes, take longer than the tests that log them.

    Each test begins so, whatever an earlier one has set up: a command that it ran in this process, say.
    """
    structlog.reset_defaults()
    short = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=_write_short)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], short])


def _write_short(out: TextIO, error: Any) -> None:
    """What UTF-8 cannot say is escaped: reports of workers are sent as UTF-8."""
    text = "".join(traceback.format_exception(*error))
    out.write("\n" + text.encode(errors="backslashreplace").decode())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of their turns."""
    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """How `-n` divides the tests, whatever `--dist` says."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


_SKIPPED_EVEN_IN_CI = "docker compose is not installed here"  # the YAML is checked all the same


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI=true a skipped test fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if in_ci() and any(_SKIPPED_EVEN_IN_CI not in str(report.longrepr) for report in skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which logs the conformance suite ran over."""
    ran = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    covered = {value for report in ran for name, value in report.user_properties if name == "log"}
    if covered:
        names = [name for name in ("memory", "sqlite", "mock", "kafka") if name in covered]
        terminalreporter.write_line(f"conformance: {', '.join(names)}")
