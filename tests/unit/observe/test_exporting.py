"""Where spans are sent to, as OpenTelemetry's variables say."""

import os
import subprocess
import sys

import pytest

from choreo.errors import ConfigurationError
from choreo.observe.exporting import exporters_wanted, exporting


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console, zipkin_json"}, ["console", "zipkin_json"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_the_standard_variables_decide(environment, variables, wanted):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert exporters_wanted() == wanted


def test_without_them_nothing_is_loaded():
    code = (
        "import sys\nfrom choreo.observe.exporting import exporting\n"
        "with exporting(['payments']): assert 'opentelemetry.sdk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "remedy"), [("otlp", r"pip install 'choreo\[otlp\]'"), ("jaeger_thrift", "exporter-jaeger-thrift")]
)
def test_an_exporter_that_is_not_installed_is_named(environment, name, remedy):
    environment.setenv("OTEL_TRACES_EXPORTER", name)
    environment.setattr("choreo.observe.exporting.entry_points", lambda **_: ())
    with pytest.raises(ConfigurationError, match=f"'{name}' is not installed .*{remedy}"), exporting(["payments"]):
        pass


def test_an_exporter_that_cannot_be_made_says_why(environment):
    environment.setenv("OTEL_TRACES_EXPORTER", "zipkin_json")
    environment.setenv("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match=r"'zipkin_json' cannot be made.*soon"), exporting(["payments"]):
        pass


SPANS = """
import os, sys
from opentelemetry import trace
from choreo.observe.exporting import exporting
from choreo.observe.tracing import tracing_of
with exporting(sys.argv[1:]):
    for name in sys.argv[1:]:
        tracing_of(name).create("orders", "e", "c").end()
    with trace.get_tracer("mine").start_as_current_span("mine"): pass
"""


def services_of(arguments, **variables):
    """Which service each span is of, by its name, with all spans printed by a process of its own."""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console", **variables}
    done = subprocess.run(
        [sys.executable, "-c", SPANS, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.strip().rstrip(",") for line in done.stdout.splitlines()]
    names = [line.split('"')[3] for line in lines if line.startswith('"name":')]
    services = [line.split('"')[3] for line in lines if line.startswith('"service.name":')]
    return sorted(zip(names, services, strict=True))


def test_each_service_of_a_process_has_its_name_on_its_spans():
    found = services_of(["payments", "stock"])
    assert found == [("create orders", "payments"), ("create orders", "stock"), ("mine", "choreo")]


def test_a_service_alone_has_its_name_on_what_its_handlers_record_too():
    assert services_of(["payments"]) == [("create orders", "payments"), ("mine", "payments")]


def test_a_name_that_is_given_is_on_all_of_them():
    found = services_of(["payments", "stock"], OTEL_SERVICE_NAME="shop")
    assert {service for _, service in found} == {"shop"}
