"""The records of events that are emitted for a batch."""

from __future__ import annotations

from collections.abc import Sequence

from choreo.events import Event, Metadata
from choreo.log.port import NewRecord
from choreo.runtime.batches.context import batch_id
from choreo.runtime.batches.job import Part
from choreo.runtime.clock import rfc3339
from choreo.runtime.emit import Emitter


class BatchEmitter(Emitter):
    """Makes the first events of new sagas: the events of a batch belong to many, and none of them goes on here."""

    def firsts(self, part: Part, events: Sequence[Event]) -> list[NewRecord]:
        """The records of events that a call with these records emits; their cause is the first of them.

        Raises:
            EncodeError, RecordTooLargeError: one of them cannot be written.
        """
        if not events:
            return []
        now_ms = self._clock.now_ms()
        time, cause, source = rfc3339(now_ms), part.metadata.event_id, part.handler.service
        trace = part.trace(part.handler)
        carried = (trace.traceparent, trace.tracestate) if trace is not None else (None, None)
        records = []
        for ordinal, event in enumerate(events):
            event_id = batch_id(part, ordinal)
            metadata = Metadata(event_id, event.contract.type_name, source, time, event_id, cause, *carried)
            records.append(self._record(event, metadata, now_ms))
        return records
