"""One order of the shop, handled by a process for each service, as a real Zipkin shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from choreo import Settings, connect
from choreo.log import open_log
from choreo.observe.tracing import give_provider
from services.shop import services
from services.shop.audit import findings_now
from services.shop.model import books_of
from services.shop.orders_generator import orders
from services.trial import begin, publish, settle
from tests.conftest import started
from tests.servers.zipkin import ZipkinServer
from tests.services.conftest import SCHEMAS
from tests.services.processes import KAFKA, ServiceProcess

ALL = [service.name for service in services]


@pytest.fixture(scope="module")
def zipkin() -> Iterator[ZipkinServer]:
    yield from started(ZipkinServer)


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_an_order_is_one_connected_trace_over_all_services(
    log_url: str, tmp_path: Path, zipkin: ZipkinServer
) -> None:
    placed = orders(7, 1)
    client = f"web-{log_url.partition(':')[0]}"
    settings = Settings(
        log=log_url, store=f"sqlite:///{tmp_path}/{{service}}.db", registry=SCHEMAS, create_topics=True,
        kafka=KAFKA if log_url.startswith("kafka") else {},
    )  # fmt: skip
    exported = {
        "OTEL_TRACES_EXPORTER": "zipkin_json", "OTEL_EXPORTER_ZIPKIN_ENDPOINT": zipkin.spans_url,
    }  # fmt: skip
    running = [ServiceProcess("services.shop", [name], settings, exported) for name in ALL]
    provider = TracerProvider(resource=Resource.create({"service.name": client}))
    provider.add_span_processor(BatchSpanProcessor(ZipkinExporter(endpoint=zipkin.spans_url)))
    give_provider(client, provider)
    try:
        async with open_log(settings.log) as log:
            since = await begin(services, settings, log)
            for process in running:
                process.start()
            async with connect(settings, source=client, log=log) as bus:
                await publish(bus, placed)
            look = partial(findings_now, settings.store, books_of(placed))
            verdict = await settle(services, log, look, since=since)
            assert verdict.findings == [], "\n".join(process.log_tail() for process in running)
        await asyncio.gather(*(asyncio.to_thread(process.stop) for process in running))
    finally:
        for process in running:
            process.__exit__()
        provider.shutdown()
    (trace,) = await asyncio.to_thread(zipkin.traces, client)
    ids = {span["id"] for span in trace}
    roots = [span for span in trace if span.get("parentId") not in ids]
    assert [(span["name"], span["localEndpoint"]["serviceName"]) for span in roots] == [("send orders", client)]
    assert {span["localEndpoint"]["serviceName"] for span in trace} == {client, *ALL}
    handlers = {(span["localEndpoint"]["serviceName"], span["tags"].get("choreo.handler")) for span in trace}
    assert {("payments", "charge"), ("inventory", "reserve")} <= handlers
    sagas = {span["tags"]["messaging.message.conversation_id"] for span in trace if "process" in span["name"]}
    assert len(sagas) == 1, "its correlation id is on every span of a handler"
