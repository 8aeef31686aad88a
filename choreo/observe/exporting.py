"""Sending spans somewhere, as the variables of OpenTelemetry say: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_EXPORTER` and others.

Each service of a process has a provider of its own, so that what it does stands under its name and not under the
process's. A program that has configured a provider itself, or was started by `opentelemetry-instrument`, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from threading import Thread
from typing import TYPE_CHECKING

from choreo.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_GROUP = "opentelemetry_traces_exporter"
_LAST_SPANS = 5.0
"""Seconds that the last spans get at the end."""


def exporters_wanted() -> list[str]:
    """The exporters that the environment names; an OTLP endpoint alone means `otlp`."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    named = os.environ.get("OTEL_TRACES_EXPORTER", "")
    if not named:
        endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        named = "otlp" if any(os.environ.get(name) for name in endpoints) else ""
    return [name.strip() for name in named.split(",") if name.strip() not in {"", "none"}]


@contextmanager
def exporting(services: Sequence[str]) -> Iterator[None]:
    """Send the spans of these services while the block runs, if the environment wants that.

    Raises:
        ConfigurationError: an exporter is not installed or cannot be made.
    """
    wanted = exporters_wanted()
    if not wanted or not _is_free():
        yield
        return
    from opentelemetry import trace

    from choreo.observe.tracing import give_provider

    providers = {service: _provider(service, wanted) for service in services}
    for service, provider in providers.items():
        give_provider(service, provider)
    alone = next(iter(providers.values())) if len(providers) == 1 else None
    common = alone or _provider("choreo", wanted)
    trace.set_tracer_provider(common)
    try:
        yield
    finally:
        ending = [Thread(target=each.shutdown, daemon=True) for each in {*providers.values(), common}]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join(_LAST_SPANS)


def _is_free() -> bool:
    """Whether nobody has configured a provider."""
    from opentelemetry import trace

    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _provider(service: str, exporters: Sequence[str]) -> TracerProvider:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = OTELResourceDetector().detect().attributes.get("service.name")  # OTEL_SERVICE_NAME, above all
    provider = TracerProvider(resource=Resource.create({"service.name": named or service}), shutdown_on_exit=False)
    for name in exporters:
        provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def _exporter(name: str) -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    wanted = f"otlp_proto_{'http' if protocol.startswith('http') else 'grpc'}" if name == "otlp" else name
    found = list(entry_points(group=_GROUP, name=wanted))
    if not found:
        package = "choreo[otlp]" if name.startswith("otlp") else f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise ConfigurationError(
            f"traces exporter {name!r} is not installed",
            remedy=f"pip install '{package}', or OTEL_TRACES_EXPORTER=none",
        )
    try:
        made: SpanExporter = found[0].load()()
    except Exception as error:  # an exporter may raise what it likes at bad settings
        raise ConfigurationError(
            f"traces exporter {name!r} cannot be made", why=str(error), remedy="see its OTEL_EXPORTER_… variables"
        ) from error
    return made
