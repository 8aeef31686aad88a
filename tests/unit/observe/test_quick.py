"""Quick spans are told apart from the SDK's by their price only."""

import json

import pytest
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider, SpanContext, Status, StatusCode, TraceFlags

from choreo.events import Metadata
from choreo.log.port import Record
from choreo.observe.quick import QuickSpan, QuickTracer
from choreo.observe.tracing import Tracing
from choreo.observe.w3c import headers_of, parsed

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
RECORD = Record("orders", 1, 7, 0, b"k", b"v", [])
METADATA = Metadata("e-1", "Placed", "web", "now", "c-1", None, PARENT, "vendor=1")


def recorded(provider):
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def use(span):
    """What the code inside a handler may do with its span."""
    span.set_attribute("order", 7)
    span.set_attribute("bad", object())
    span.set_attributes({"a": [1, 2], "messaging.kafka.offset": 8})
    span.add_event("called", {"to": "bank"}, 5)
    span.add_link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)), {"why": "cause"})
    try:
        raise ValueError("no card")
    except ValueError as error:
        span.record_exception(error, {"choreo.attempt": 1}, 6)
    span.update_name("process my orders")
    span.set_status(StatusCode.ERROR, "first")
    span.set_status(Status(StatusCode.UNSET))
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")


def without_chance(span):
    told = json.loads(span.to_json())
    for name in ("start_time", "end_time"):
        assert told.pop(name)
    assert told["context"].pop("span_id") != told["parent_id"]
    return told


@pytest.mark.parametrize("inside", [lambda _: None, use], ids=["untouched", "used"])
def test_what_is_exported_is_what_the_sdk_would_export(inside):
    spans = []
    for sampler in (ParentBased(ALWAYS_ON), ALWAYS_ON):
        provider = TracerProvider(sampler=sampler)
        exporter = recorded(provider)
        trace = Tracing(provider, "payments").process("pay", RECORD, METADATA)
        assert isinstance(trace.span, QuickSpan) is isinstance(sampler, ParentBased)
        inside(trace.span)
        assert trace.span.is_recording()
        assert trace.span.get_span_context().trace_state.to_header() == trace.tracestate == "vendor=1"
        assert headers_of(trace.span.get_span_context())[0] == trace.traceparent
        trace.end()
        assert not trace.span.is_recording()
        trace.span.end()
        (span,) = exporter.get_finished_spans()
        assert span.start_time <= span.end_time
        assert span.instrumentation_scope.name == "choreo"
        assert span.parent == parsed(PARENT, "vendor=1")
        spans.append(span)
    quick, slow = map(without_chance, spans)
    assert quick == slow


def test_what_comes_after_the_end_changes_nothing():
    provider = TracerProvider()
    exporter = recorded(provider)
    span = Tracing(provider, "payments").process("pay", RECORD, METADATA).span
    span.end()
    use(span)
    (ended,) = exporter.get_finished_spans()
    assert (ended.name, ended.status.status_code, len(ended.events), len(ended.links)) == (
        "process orders", StatusCode.UNSET, 0, 0,
    )  # fmt: skip
    assert "order" not in ended.attributes


class Curious(SpanProcessor):
    def on_start(self, span, parent_context=None):
        span.set_attribute("seen", True)


class Own(TracerProvider): ...


def with_processor(processor):
    provider = TracerProvider()
    provider.add_span_processor(processor)
    return provider


@pytest.mark.parametrize(
    "provider",
    [
        TracerProvider(sampler=ALWAYS_OFF),
        TracerProvider(sampler=TraceIdRatioBased(0.5)),
        TracerProvider(sampler=ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF)),
        TracerProvider(span_limits=SpanLimits(max_span_attributes=3)),
        with_processor(Curious()),
        Own(),
        NoOpTracerProvider(),
    ],
    ids=["off", "by ratio", "another rule below others", "limits", "a processor that starts", "another class", "none"],
)
def test_others_than_the_plain_provider_get_their_own_spans(provider):
    assert QuickTracer.of(provider, provider.get_tracer("choreo")) is None


def test_a_processor_that_comes_later_sees_all_that_begins_from_then_on():
    provider = TracerProvider()
    exporter = recorded(provider)
    tracing = Tracing(provider, "payments")
    tracing.process("pay", RECORD, METADATA).end()
    provider.add_span_processor(Curious())
    tracing.process("pay", RECORD, METADATA).end()
    first, second = exporter.get_finished_spans()
    assert ("seen" in first.attributes, "seen" in second.attributes) == (False, True)


@pytest.mark.parametrize(
    "text",
    ["", "00", PARENT[:-1], "ff" + PARENT[2:], PARENT.replace("ab", "zz"), f"00-{'0' * 32}-{'cd' * 8}-01", "x" * 55],
)
def test_a_traceparent_that_makes_no_sense_is_none(text):
    assert parsed(text, None) is None


def test_a_traceparent_is_read_as_w3c_has_it():
    known = parsed(PARENT, "a=1,b=2")
    assert headers_of(known) == (PARENT, "a=1,b=2")
    assert known.is_remote
    later = parsed(f"01{PARENT[2:]}-and-more", None)
    assert later.trace_id == known.trace_id, "later versions only add to it"
