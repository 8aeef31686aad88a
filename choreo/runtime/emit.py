"""From what a handler returned to the records of its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from choreo.errors import RecordTooLargeError, UndeclaredEmissionError
from choreo.events import Event, Failure, Metadata, topic_of
from choreo.handler import Handler
from choreo.log.port import NewRecord
from choreo.runtime.clock import Clock, rfc3339
from choreo.runtime.deadletter import size_of
from choreo.runtime.partitions import Job
from choreo.wire import Codec
from choreo.wire.ids import derive_event_id

if TYPE_CHECKING:
    from choreo.observe.tracing import Trace, Tracing


class Emitter:
    """Makes the records of emitted events; `max_record_bytes` is the size of the largest, `tracing` None if there are no spans."""

    def __init__(self, codec: Codec, clock: Clock, max_record_bytes: int, tracing: Tracing | None = None) -> None:
        self._codec = codec
        self._tracing = tracing
        self._clock = clock
        self.max_record_bytes = max_record_bytes

    def records(
        self, job: Job, handler: Handler, events: Sequence[Event], scope: str = "", compensates: str | None = None
    ) -> list[NewRecord]:
        """The records of events that a call of a handler emits.

        Args:
            scope: what tells this call from others of the handler for the same event.
            compensates: the event that it undoes.

        Raises:
            EncodeError, RecordTooLargeError: one of them cannot be written.
        """
        if not events:
            return []
        now_ms = self._clock.now_ms()
        time, cause, source = rfc3339(now_ms), job.metadata, handler.name + scope
        trace = job.trace(handler)
        if trace is not None:
            trace.emits = True
        carried = trace or cause
        records = []
        for ordinal, event in enumerate(events):
            event_id = derive_event_id(cause.event_id, handler.service, source, ordinal, time_ms=job.record.timestamp)
            metadata = Metadata(
                *(event_id, event.contract.type_name, handler.service, time, cause.correlation_id, cause.event_id),
                *(carried.traceparent, carried.tracestate, compensates),
            )
            records.append(self._record(event, metadata, now_ms))
        return records

    def failure(self, job: Job, handler: Handler, event: Any, scope: str = "") -> list[NewRecord]:
        """The record of the failure that stands for a business error of a call with this scope, see `records`.

        Raises:
            UndeclaredEmissionError, EncodeError, RecordTooLargeError: it cannot be emitted.
        """
        if not isinstance(event, Failure) or type(event) not in handler.emits.classes:
            raise undeclared(handler, f"a {type(event).__name__} for a business error")
        return self.records(job, handler, [event], scope)

    def starts(self, job: Job, sagas: Sequence[tuple[str, Event]], handler: Handler) -> list[NewRecord]:
        """The records of events that begin sagas of their own, each given with its id; raises as `records`."""
        now_ms = self._clock.now_ms()
        time, cause = rfc3339(now_ms), job.metadata
        records = []
        for event_id, event in sagas:
            carried = self._start_trace(event, event_id, job.trace(handler)) or cause
            metadata = Metadata(
                *(event_id, event.contract.type_name, handler.service, time, event_id, cause.event_id),
                *(carried.traceparent, carried.tracestate, None, cause.correlation_id),
            )
            records.append(self._record(event, metadata, now_ms))
        return records

    def _start_trace(self, event: Event, event_id: str, after: Trace | None) -> Trace | None:
        """A trace for a new saga: the first event is its first span. None if the handler's own is not recorded."""
        if self._tracing is None or after is None:
            return None
        trace = self._tracing.create(topic_of(event), event_id, event_id, after=after)
        trace.end()
        return trace

    def _record(self, event: Event, metadata: Metadata, now_ms: int) -> NewRecord:
        record = self._codec.encode(event, metadata, timestamp=now_ms)
        check_size(record, self.max_record_bytes)
        return record


def emitted(handler: Handler, result: Any) -> list[Event]:
    """The events a handler returned, checked against its declaration.

    Raises:
        UndeclaredEmissionError: it returned something its annotation does not name.
    """
    emits = handler.emits
    if result is None:
        if not emits.nothing:
            raise undeclared(handler, "nothing")
        return []
    if isinstance(result, Event):
        if not emits.one or type(result) not in emits.classes:
            raise undeclared(handler, f"a {type(result).__name__}")
        return [result]
    if isinstance(result, (list, tuple)) and emits.many:
        for event in result:
            if type(event) not in emits.classes:
                raise undeclared(handler, f"a {type(event).__name__} among its events")
        return list(result)
    raise undeclared(handler, f"a {type(result).__name__}")


def undeclared(handler: Handler, what: str) -> UndeclaredEmissionError:
    """The error for something that a handler's return annotation does not name."""
    declared = [cls.__name__ for cls in handler.emits.classes] + (["None"] if handler.emits.nothing else [])
    return UndeclaredEmissionError(
        f"handler {handler} returned {what}, but declares {' | '.join(declared)}",
        remedy="name it in the return annotation, or return only what is declared",
    )


def check_size(record: NewRecord, max_bytes: int) -> None:
    """Refuse a record that the log would refuse, before it stands in an outbox.

    Raises:
        RecordTooLargeError: key, value and headers together are larger than the limit.
    """
    size = size_of(record.key, record.value, record.headers)
    if size > max_bytes:
        raise RecordTooLargeError(
            f"an event for topic {record.topic!r} takes {size} bytes, and the limit is {max_bytes}",
            remedy="keep large contents elsewhere and send a reference, or raise CHOREO_MAX_RECORD_BYTES and the topic's max.message.bytes",
        )
