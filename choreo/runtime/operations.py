"""An instance's operations on the log, counted and traced: appends, what is read, commits of offsets."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from choreo.events import Event, topic_of
from choreo.log.port import NewRecord, Record, TopicPartition
from choreo.observe.w3c import sampled
from choreo.runtime.partitions import Job
from choreo.runtime.stats import Operation, Stats

if TYPE_CHECKING:
    from choreo.observe.tracing import Trace, Tracing


class Operations:
    """Told of each operation by who does it.

    Attributes:
        client: whose they are: a service, or who publishes.
        tracing: None as long as there are no spans.
    """

    def __init__(self, client: str, stats: Stats) -> None:
        self.client = client
        self._stats = stats
        self.tracing: Tracing | None = None

    @contextmanager
    def sending(self, records: Sequence[NewRecord], spans: Sequence[Any] | None = None) -> Iterator[None]:
        """Around an append of these records; `spans`: the recorded ones that it is for, unless the records say it."""
        with self._timed("send"), self.tracing.sending(records, spans) if self.tracing else nullcontext():
            yield
        self._stats.appended(records)

    @contextmanager
    def publishing(self, event: Event, event_id: str, correlation_id: str) -> Iterator[Trace | None]:
        """Around the append of one event, in whose span it is made; None if there are no spans."""
        if self.tracing is None:
            with self._timed("send"):
                yield None
        else:
            trace = self.tracing.create(topic_of(event), event_id, correlation_id, name="send")
            with self._timed("send"), trace.until_end():
                yield trace
        self._stats.sent[topic_of(event)] += 1

    @contextmanager
    def committing(self, partitions: Collection[TopicPartition], handled: Sequence[Any] = ()) -> Iterator[None]:
        """Around a commit of the group's offsets; `handled`: the recorded spans of what was handled."""
        topics = {at.topic for at in partitions}
        with self._timed("commit"), self.tracing.committing(topics, handled) if self.tracing else nullcontext():
            yield

    @contextmanager
    def taking_in(self, records: Sequence[Record]) -> Iterator[list[Job]]:
        """From when records have come to when they are in their lanes; the block adds the jobs that they became."""
        jobs: list[Job] = []
        begun = time.time_ns()
        self._stats.read(records)
        with self._timed("poll"):
            yield jobs
        if self.tracing is not None and jobs:
            recorded = [job.metadata for job in jobs if job.metadata.traceparent and sampled(job.metadata.traceparent)]
            if recorded:
                traces = ((metadata.traceparent, metadata.tracestate) for metadata in recorded)
                self.tracing.polled(traces, {job.partition.at.topic for job in jobs}, begun)

    @contextmanager
    def _timed(self, operation: Operation) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._stats.took(operation, time.perf_counter() - begun, type(error).__qualname__)
            raise
        self._stats.took(operation, time.perf_counter() - begun)
