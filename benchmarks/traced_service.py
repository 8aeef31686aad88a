"""Contestants of `tracing.py`: the service of `by_choreo.py` with more or less said about it.

python traced_service.py uncounted | off | carried | one | all
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

import structlog
from by_choreo import service
from job import Bench
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from choreo import Settings
from choreo.runtime.run import run_services, run_to_end
from choreo.runtime.stats import Stats


class Dropping(SpanExporter):
    """An exporter that costs nothing: what is measured is choreo's part and the SDK's."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - they are dropped
        return SpanExportResult.SUCCESS


def leave_out_counts() -> None:
    for name in ("called", "took", "read", "appended"):
        setattr(Stats, name, lambda *_: None)


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bench, stop, kind = Bench.here(), asyncio.Event(), sys.argv[1]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if kind == "uncounted":
        leave_out_counts()
    elif kind in {"one", "all"}:
        provider = TracerProvider()  # parent-based: what the orders say, is done
        provider.add_span_processor(BatchSpanProcessor(Dropping()))
        trace.set_tracer_provider(provider)
    client = {"session.timeout.ms": "6000"}
    settings = Settings(log=bench.log, store=bench.store, registry=bench.schemas, kafka=client, create_topics=True)
    await run_services([service(bench.group, transactional=False)], settings, stop=stop)


if __name__ == "__main__":
    run_to_end(main())
