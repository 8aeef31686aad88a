"""Spans of OpenTelemetry's messaging conventions, and W3C trace context from one event to the next.

The names are those of version 1.44 of the conventions, which are not final; `SCHEMA` says so in every span. Spans go to
the tracer provider that the program has configured. Without one nothing is made, and what came in is passed on.

- `process T` (CONSUMER): a handler at work on a record, all its attempts in the lane; its parent is what emitted the event, and the
  events that it emits carry its context. Several records in one call: no parent, a link to each.
- `send T` (PRODUCER), `poll T`, `commit T` (CLIENT): an operation on the log. It is the child of the one recorded span that
  it works for, or is linked to those if there are several; where there is none, it is not recorded.
- `create T` (PRODUCER): an event that begins a trace of its own: each of many that are published at once, and the first of
  a child saga, linked to the handler that has begun it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
)

from choreo.events import Metadata
from choreo.log.port import Headers, NewRecord, Record
from choreo.observe.quick import QuickSpan, QuickTracer
from choreo.observe.w3c import MOST_LINKS, headers_of, ids_of, parsed, recorded, recorded_in

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_log = structlog.get_logger("choreo.tracing")
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM = "kafka"
"""`messaging.system`, also of the embedded logs: they keep Kafka's promises, and dashboards are the same."""
_TYPES = {"send": "send", "poll": "receive", "commit": "settle", "process": "process", "create": "create"}
_KINDS = {
    "send": SpanKind.PRODUCER, "create": SpanKind.PRODUCER, "process": SpanKind.CONSUMER,
    "poll": SpanKind.CLIENT, "commit": SpanKind.CLIENT,
}  # fmt: skip
_providers: dict[str, TracerProvider] = {}
"""Of single services, whose names stand in their resources; see `choreo.observe.exporting`."""

Operation = Literal["send", "poll", "commit", "process", "create"]


class Trace:
    """A span under way that events carry.

    Attributes:
        span: it may turn out not to be recorded.
        traceparent, tracestate: what the events carry.
        error: the last failed attempt of it; None if what followed did well.
        emits: whether something goes to the log because of it.
    """

    __slots__ = ("_context", "emits", "error", "span", "traceparent", "tracestate")

    def __init__(self, span: Span, traceparent: str | None = None, tracestate: str | None = None) -> None:
        self.span = span
        self._context = Context({_CURRENT: span})
        if traceparent is None:
            traceparent, tracestate = headers_of(span.get_span_context())
        self.traceparent, self.tracestate = traceparent, tracestate
        self.error: BaseException | None = None
        self.emits = False

    @property
    def ids(self) -> dict[str, str]:
        """What a log line says of it; nothing if it is not recorded."""
        span = self.span.get_span_context()
        return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.trace_flags & 1 else {}

    def enter(self) -> Any:
        """Make it the current span; gives the token that `opentelemetry.context.detach` takes."""
        return context.attach(self._context)

    def failed(self, error: BaseException, attempt: int) -> None:
        """An attempt has failed."""
        self.error = error
        if self.span.is_recording():
            self.span.record_exception(error, {"choreo.attempt": attempt})

    def end(self) -> Span | None:
        """It ends, as its last attempt did; gives the span if it is recorded."""
        span = self.span
        if not span.is_recording():
            return None
        if self.error is not None:
            span.set_attribute("error.type", type(self.error).__qualname__)
            span.set_status(StatusCode.ERROR, _text(self.error))
            self.error = None
        span.end()
        return span

    @contextmanager
    def until_end(self) -> Iterator[None]:
        """It ends with the block, and as that does."""
        try:
            yield
        except BaseException as error:
            self.failed(error, 1)
            raise
        finally:
            self.end()

    def abandon(self) -> None:
        """It ends without an outcome: somebody else handles the record again."""
        if self.span.is_recording():
            self.span.set_attribute("error.type", "abandoned")
            self.span.set_status(StatusCode.ERROR, "the partition has gone, or its transaction failed")
            self.span.end()


class Unrecorded(NonRecordingSpan):
    """Is current in a worker as long as no recorded span is: what a handler calls is then not recorded either, and carries its trace on.

    It stands for the event that the worker is at work on, whichever that is: to enter one for each would take a fiftieth of
    the time. A task that a handler leaves behind sees later events' ids; not recorded, in any case.

    Args:
        event: the metadata of that event; None if there is none. May be asked in other threads.
    """

    def __init__(self, event: Callable[[], Metadata | None]) -> None:
        self._event = event

    def get_span_context(self) -> SpanContext:
        """See `Span.get_span_context`."""
        event = self._event()
        known = parsed(event.traceparent, event.tracestate) if event is not None else None
        if known is None:
            return trace.INVALID_SPAN_CONTEXT
        return SpanContext(known.trace_id, known.span_id, is_remote=True, trace_state=known.trace_state)


_CURRENT: str = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
"""The key of the current span in a context."""


class Tracing:
    """Makes the spans of one service or program. `tracing_of` gives one where a provider is configured."""

    def __init__(self, provider: TracerProvider, client: str) -> None:
        self._tracer = provider.get_tracer("choreo", schema_url=SCHEMA)
        self._quick = QuickTracer.of(provider, self._tracer)
        self._client = client

    # --- handlers -------------------------------------------------------------------------------------------------

    def enter_worker(self, event: Callable[[], Metadata | None]) -> None:
        """A worker begins, in this task; `event`: see `Unrecorded`."""
        context.attach(Context({_CURRENT: Unrecorded(event)}))

    def process(self, handler: str, record: Record, metadata: Metadata, others: Sequence[Headers] = ()) -> Trace:
        """A handler begins with a record; `others` are the headers of further events that have led to this call."""
        traceparent, tracestate = metadata.traceparent, metadata.tracestate
        name, about = f"process {record.topic}", partial(self._about, handler, record, metadata)
        ids = ids_of(traceparent) if traceparent is not None else None
        quick = self._quick
        if quick is not None and ids is not None and traceparent is not None and not others and quick.is_right:
            span = QuickSpan(quick, name, SpanKind.CONSUMER, (traceparent, tracestate), ids[0], about)
            return Trace(span, span.traceparent(traceparent), tracestate)
        known = parsed(traceparent, tracestate)
        parent = Context({_CURRENT: NonRecordingSpan(known)}) if known is not None else Context()
        links = [Link(one) for one in recorded_in(others).values()]
        return Trace(self._tracer.start_span(name, parent, SpanKind.CONSUMER, about(), links))

    def _about(self, handler: str, record: Record, metadata: Metadata) -> dict[str, Any]:
        return {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.consumer.group.name": self._client,
            "messaging.message.id": metadata.event_id,
            "messaging.message.conversation_id": metadata.correlation_id,
            "messaging.kafka.offset": record.offset,
            "choreo.handler": handler,
            "choreo.event_type": metadata.type_name,
        }

    def process_batch(self, handler: str, members: Sequence[tuple[Record, Metadata]]) -> Trace | None:
        """A handler begins with several records; None if no trace of theirs is recorded."""
        found = recorded((metadata.traceparent, metadata.tracestate) for _, metadata in members)
        if not found:
            return None
        made = self._start("process", {record.topic for record, _ in members}, list(found.values()), len(members))
        made.set_attributes({"choreo.handler": handler, "messaging.consumer.group.name": self._client})
        return Trace(made)

    # --- events that begin a trace ----------------------------------------------------------------------------------

    def create(
        self, topic: str, event_id: str, correlation_id: str, *, after: Trace | None = None, name: Operation = "create"
    ) -> Trace:
        """An event is made: in the current trace, or `after` a span of another one, to which it is linked."""
        attributes = {
            **_attributes(name, (topic,)),
            "messaging.client.id": self._client,
            "messaging.message.id": event_id,
            "messaging.message.conversation_id": correlation_id,
        }
        within, links = (None, None) if after is None else (Context(), [Link(after.span.get_span_context())])
        return Trace(self._tracer.start_span(f"{name} {topic}", within, SpanKind.PRODUCER, attributes, links))

    # --- operations on the log ------------------------------------------------------------------------------------

    @contextmanager
    def sending(self, records: Sequence[NewRecord], spans: Sequence[Span] | None = None) -> Iterator[None]:
        """`send T`, around an append, for these spans; unless they are given, for those that the records carry."""
        if spans is None:
            about = list(recorded_in(record.headers for record in records).values())
        else:
            about = [span.get_span_context() for span in spans[:MOST_LINKS]]
        with self._around("send", about, records):
            yield

    def polled(self, traces: Iterable[tuple[str | None, str | None]], topics: Iterable[str], begun_ns: int) -> None:
        """`poll T`: records have come at `begun_ns`, and are in their lanes now."""
        if found := recorded(traces):
            self._start("poll", topics, list(found.values()), start_ns=begun_ns).end()

    @contextmanager
    def committing(self, topics: Iterable[str], handled: Sequence[Span]) -> Iterator[None]:
        """`commit T`, around a commit of the group's offsets, for the spans of what was handled."""
        with self._around("commit", [span.get_span_context() for span in handled[:MOST_LINKS]], topics=topics):
            yield

    @contextmanager
    def _around(
        self,
        name: Operation,
        about: Sequence[SpanContext],
        records: Sequence[NewRecord] = (),
        topics: Iterable[str] = (),
    ) -> Iterator[None]:
        if not about:
            yield
            return
        topics = {record.topic for record in records} or topics
        span = self._start(name, topics, about, len(records))
        try:
            yield
        except BaseException as error:
            span.record_exception(error)
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR, _text(error))
            raise
        finally:
            span.end()

    def _start(
        self,
        name: Operation,
        topics: Iterable[str],
        about: Sequence[SpanContext],
        count: int = 0,
        start_ns: int | None = None,
    ) -> Span:
        """The span of an operation, below the one span that it is about, or linked to all of them."""
        names = tuple(topics)
        attributes = {**_attributes(name, names), "messaging.client.id": self._client}
        if count > 1:
            attributes["messaging.batch.message_count"] = count
        text = f"{name} {names[0]}" if len(names) == 1 else name
        links = [Link(one) for one in about[:MOST_LINKS]] if len(about) > 1 else []
        if self._quick is not None and self._quick.is_right:
            quick = self._quick_operation(self._quick, text, name, about[0], attributes, links)
            if quick is not None:
                quick.start_ns = start_ns or quick.start_ns
                return quick
        parent = Context() if links else Context({_CURRENT: NonRecordingSpan(about[0])})
        return self._tracer.start_span(text, parent, _KINDS[name], attributes, links, start_ns or time.time_ns())

    def _quick_operation(
        self, quick: QuickTracer, text: str, name: Operation, about: SpanContext, attributes: dict[str, Any],
        links: Sequence[Link],
    ) -> QuickSpan | None:  # fmt: skip
        kind = _KINDS[name]
        if links:
            return quick.root(text, kind, attributes, links)
        return QuickSpan(quick, text, kind, about, about.trace_id, attributes)


def tracing_of(client: str) -> Tracing | None:
    """The spans of this service or program; None if no tracer provider is configured.

    A provider counts from when it is set: services look for it when they start, after their `lifespan` has begun.
    """
    provider = _providers.get(client) or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    _warn_of_doubles()
    return Tracing(provider, client)


def give_provider(client: str, provider: TracerProvider) -> None:
    """Let one service have a provider of its own, in whose resource it has its name."""
    _providers[client] = provider


def _attributes(name: Operation, topics: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "messaging.system": SYSTEM, "messaging.operation.name": name, "messaging.operation.type": _TYPES[name],
    }  # fmt: skip
    if len(topics) == 1:
        made["messaging.destination.name"] = topics[0]
    return made


def _text(error: BaseException) -> str:
    """An error's text; some errors cannot even make it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text is somebody else's code
        return type(error).__name__


_warned = False


def _warn_of_doubles() -> None:
    """Say once that OpenTelemetry's own instrumentation of the Kafka client would make a second span of everything."""
    global _warned  # noqa: PLW0603 - once a process
    module = sys.modules.get("opentelemetry.instrumentation.confluent_kafka")
    instrumentor = getattr(module, "ConfluentKafkaInstrumentor", None)
    if not _warned and instrumentor is not None and instrumentor().is_instrumented_by_opentelemetry:
        _warned = True
        _log.warning(
            "opentelemetry-instrumentation-confluent-kafka makes spans of what choreo makes spans of: switch it off",
            remedy="OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=confluent_kafka",
        )
