"""W3C trace context: which spans of others the headers of events name, and whether those are recorded."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from choreo.log.port import Headers

MOST_LINKS = 128
"""As many as the SDK keeps of one span."""
_SAMPLED = frozenset("13579bdf")
_SAMPLED_BYTES = frozenset(b"13579bdf")
_SET, _CLEAR = TraceFlags(1), TraceFlags(0)
_FLAGS = 54
"""Where the last digit of the flags stands in a `traceparent`."""


def sampled(traceparent: str | None) -> bool:
    """Whether a trace is recorded, by its flags."""
    return traceparent is not None and traceparent[_FLAGS : _FLAGS + 1] in _SAMPLED


def unrecorded(traceparent: str | None) -> bool:
    """Whether there is a trace that is not recorded: no span is begun then."""
    return traceparent is not None and traceparent[_FLAGS : _FLAGS + 1] not in _SAMPLED


def parsed(traceparent: str | None, tracestate: str | None) -> SpanContext | None:
    """A span of others by its headers; None if they make no sense."""
    ids = ids_of(traceparent or "")
    if ids is None:
        return None
    try:
        state = TraceState.from_header([tracestate]) if tracestate else None
    except ValueError:
        state = None
    return SpanContext(*ids, is_remote=True, trace_flags=_SET if sampled(traceparent) else _CLEAR, trace_state=state)


def ids_of(traceparent: str) -> tuple[int, int] | None:
    """The ids of trace and span; None if they make no sense."""
    if len(traceparent) <= _FLAGS or not traceparent[2] == traceparent[35] == traceparent[52] == "-":
        return None
    try:
        ids = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    except ValueError:
        return None
    return ids if all(ids) and traceparent[:2] != "ff" else None


def headers_of(span: SpanContext) -> tuple[str | None, str | None]:
    """The headers for events that a span emits; none if it has no ids."""
    if not span.is_valid:
        return None, None
    traceparent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"
    return traceparent, span.trace_state.to_header() or None


def current_headers() -> tuple[str | None, str | None]:
    """The headers of the span that is active here."""
    return headers_of(trace.get_current_span().get_span_context())


def recorded(traces: Iterable[tuple[str | None, str | None]]) -> dict[str, SpanContext]:
    """The recorded spans among these headers, each once, no more than can be linked."""
    found: dict[str, SpanContext] = {}
    for traceparent, tracestate in traces:
        if (
            traceparent is not None
            and traceparent[_FLAGS : _FLAGS + 1] in _SAMPLED
            and traceparent not in found
            and (known := parsed(traceparent, tracestate)) is not None
        ):
            found[traceparent] = known
            if len(found) == MOST_LINKS:
                break
    return found


def recorded_in(records: Iterable[Headers]) -> dict[str, SpanContext]:
    """As `recorded`, from the headers of records."""
    return recorded(_trace_headers(headers) for headers in records)


def _trace_headers(headers: Headers) -> tuple[str | None, str | None]:
    named = dict(headers)
    value = named.get("traceparent", b"")
    if len(value) <= _FLAGS or value[_FLAGS] not in _SAMPLED_BYTES:
        return None, None
    return value.decode("ascii", "replace"), named.get("tracestate", b"").decode("ascii", "replace") or None
