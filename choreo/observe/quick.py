"""Spans at a third of the SDK's price, where nothing can tell the difference.

The SDK's own spans cost about half of what choreo does for a record: they are built for code that sets attributes one by one, from several
threads. One that is known from the start and mostly ends as it began need not pay for that. What comes out is the SDK's `ReadableSpan`, given
to the processors that the program has configured. `QuickTracer.of` makes one only for a provider that would surely have recorded the span and
whose processors wait for ends alone; all other spans, and all of other providers, are made by OpenTelemetry itself.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from choreo.observe.w3c import parsed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event


class QuickTracer:
    """Makes spans below sampled ones of others, and roots that the sampler wants."""

    def __init__(self, provider: Any, tracer: Any) -> None:
        self._processor = provider._active_span_processor  # noqa: SLF001 - see `of`
        self._known = self._processor._span_processors  # noqa: SLF001 - as above
        from opentelemetry.sdk.trace import ReadableSpan

        self._readable = ReadableSpan
        self._ended: list[QuickSpan] = []
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self.resource, self.scope = provider.resource, tracer._instrumentation_scope  # noqa: SLF001 - as above

    @classmethod
    def of(cls, provider: TracerProvider, tracer: Tracer) -> QuickTracer | None:
        """One for this provider; None if it, its sampler or a processor are not just those that the SDK comes with.

        What is looked at is private to the SDK. A version of it that is built otherwise is served as other providers are.
        """
        from opentelemetry.sdk.trace import SpanLimits, SynchronousMultiSpanProcessor
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

        try:
            kinds = type(provider), type(provider._active_span_processor), type(provider.sampler)  # type: ignore[attr-defined] # noqa: SLF001
            fits = (
                kinds == (SdkProvider, SynchronousMultiSpanProcessor, ParentBased)
                and provider.sampler._remote_parent_sampled is provider.sampler._local_parent_sampled is ALWAYS_ON  # type: ignore[attr-defined] # noqa: SLF001
                and vars(provider._span_limits) == vars(SpanLimits())  # type: ignore[attr-defined] # noqa: SLF001
                and not getattr(provider, "_disabled", False)
                and tracer._instrumentation_scope is not None  # type: ignore[attr-defined] # noqa: SLF001
            )
            made = cls(provider, tracer) if fits else None
        except AttributeError:
            return None
        return made if made is not None and made.only_ends_matter else None

    @property
    def only_ends_matter(self) -> bool:
        """Whether all processors are of kinds that do nothing when a span starts."""
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        self._known = self._processor._span_processors  # noqa: SLF001 - see `of`
        return all(type(each) in {BatchSpanProcessor, SimpleSpanProcessor} for each in self._known)

    @property
    def is_right(self) -> bool:
        """Whether the processors are still those that were looked at."""
        return self._processor._span_processors is self._known or self.only_ends_matter  # noqa: SLF001 - see `of`

    def root(self, name: str, kind: SpanKind, attributes: dict[str, Any], links: Sequence[Link]) -> QuickSpan | None:
        """A span without a parent; None if the sampler does not want it, or has more to say than that it does."""
        trace_id = self._ids.generate_trace_id()
        sampling = self._sampler.should_sample(None, trace_id, name, kind, attributes, links)
        if not sampling.decision.is_sampled() or sampling.attributes != attributes or sampling.trace_state:
            return None
        span = QuickSpan(self, name, kind, None, trace_id, attributes)
        span.links = links
        return span

    def give(self, span: QuickSpan) -> None:
        """A span has ended. Those that end until the event loop turns are handed over together: that takes half of the time."""
        if not self._ended:
            try:
                asyncio.get_running_loop().call_soon(self._hand_over)
            except RuntimeError:  # there is no loop in this thread
                self._ended.append(span)
                self._hand_over()
                return
        self._ended.append(span)
        if len(self._ended) >= _MOST_WAITING:
            self._hand_over()

    def _hand_over(self) -> None:
        ended, self._ended = self._ended, []
        readable, on_end, resource, scope = self._readable, self._processor.on_end, self.resource, self.scope
        for span in ended:
            on_end(
                readable(
                    name=span.name, context=span.get_span_context(), parent=span.parent, resource=resource,
                    attributes=span.attributes, events=span.events, links=span.links, kind=span.kind,
                    status=span.status, start_time=span.start_ns, end_time=span.end_ns, instrumentation_scope=scope,
                )
            )  # fmt: skip


class QuickSpan(Span):
    """A span as code inside a handler sees it.

    Args:
        parent: a span context, or the two headers that say it; read when it is asked for.
        attributes: they, or a call that makes them when they are asked for.

    Attributes:
        events, links, status: what has become of it so far.
    """

    __slots__ = (
        *("_attributes", "_made", "_parent", "_span_id", "_tracer", "_trace_id", "end_ns", "events", "kind", "links"),
        *("name", "start_ns", "status"),
    )

    def __init__(
        self,
        tracer: QuickTracer,
        name: str,
        kind: SpanKind,
        parent: SpanContext | tuple[str | None, str | None] | None,
        trace_id: int,
        attributes: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    ) -> None:
        self._tracer, self.name, self.kind, self._parent, self._attributes = tracer, name, kind, parent, attributes
        self._trace_id, self._span_id = trace_id, getrandbits(64) or 1
        self.events: Sequence[Event] = ()
        self.links: Sequence[Link] = ()
        self.status = _UNSET
        self._made: SpanContext | None = None
        self.start_ns = time.time_ns()
        self.end_ns = 0

    @property
    def parent(self) -> SpanContext | None:
        """The span that it is below."""
        parent = self._parent
        if type(parent) is tuple:
            self._parent = parent = parsed(*parent)
        return parent  # type: ignore[return-value] # a span context is a tuple too, by its class

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What is said of it."""
        if callable(self._attributes):
            self._attributes = self._attributes()
        return self._attributes

    def traceparent(self, given: str) -> str:
        """What its events carry, made of what its parent's have."""
        return f"00-{given[3:35]}-{self._span_id:016x}-01"

    def get_span_context(self) -> SpanContext:
        """See `Span.get_span_context`."""
        if self._made is None:
            state = self.parent.trace_state if self.parent is not None else None
            self._made = SpanContext(
                self._trace_id, self._span_id, is_remote=False, trace_flags=_SAMPLED, trace_state=state
            )
        return self._made

    def end(self, end_time: int | None = None) -> None:  # noqa: ARG002 - it ends when it ends
        """See `Span.end`."""
        if not self.end_ns:
            self.end_ns = time.time_ns()
            self._tracer.give(self)

    def is_recording(self) -> bool:
        """See `Span.is_recording`."""
        return not self.end_ns

    def set_attribute(self, key: str, value: Any) -> None:
        """See `Span.set_attribute`."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See `Span.set_attributes`: what comes from others is looked at as the SDK does."""
        from opentelemetry.attributes import BoundedAttributes

        if not self.end_ns:
            self._attributes = {**self.attributes, **BoundedAttributes(attributes=attributes)}

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """See `Span.add_event`."""
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import Event

        if not self.end_ns:
            self.events = [*self.events, Event(name, BoundedAttributes(attributes=attributes), timestamp)][-_MOST:]

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """See `Span.add_link`."""
        if not self.end_ns:
            self.links = [*self.links, Link(context, attributes)][-_MOST:]

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - as the API has it
    ) -> None:
        """See `Span.record_exception`."""
        kind = type(exception)
        about = {
            "exception.type": kind.__qualname__
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{kind.__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**about, **(attributes or {})}, timestamp)

    def update_name(self, name: str) -> None:
        """See `Span.update_name`."""
        if not self.end_ns:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See `Span.set_status`."""
        made = Status(status, description) if isinstance(status, StatusCode) else status
        if not self.end_ns and self.status.status_code is not StatusCode.OK and not made.is_unset:
            self.status = made


_UNSET = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_MOST_WAITING = 500
_MOST = 128
"""Events and links of one span, as the SDK has it."""
