"""Spans of services at work: what there is, what is whose child, and what is linked to what."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from choreo import BatchContext, Context, Retry, Service, connect, testing
from choreo.dlq import Reason, Selection, dead_letters
from choreo.observe import tracing
from tests.integration.runtime_world import AT_ONCE, Paid, Placed, Shipped
from tests.integration.saga_world import Charged, Ordered, OutOfStock, Refunded, Reserved, Sent, tell
from tests.support import eventually


class Spans:
    """What was recorded in this test."""

    def __init__(self, sampler=None):
        self.provider, self._exporter = TracerProvider(sampler=sampler), InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self, name=""):
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def one(self, name, **attributes):
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        found = [span for span in self.all(name) if wanted.items() <= dict(span.attributes).items()]
        assert len(found) == 1, [(span.name, dict(span.attributes)) for span in self.all()]
        return found[0]


@pytest.fixture
def spans(monkeypatch):
    made = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    return made


def parent_of(span):
    return span.parent and span.parent.span_id


def links_of(span):
    return {link.context.span_id for link in span.links}


def id_of(span):
    return span.context.span_id


def traceparent(record):
    return dict(record.headers)["traceparent"].decode()


def paying(**options) -> Service:
    service = Service("payments")

    @service.on(Placed, **options)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id, n=order.n)

    return service


async def test_an_order_is_one_trace_from_who_publishes_to_the_last_handler(world, spans):
    payments, shipping = paying(), Service("shipping")

    @shipping.on(Paid)
    def ship(paid: Paid) -> Shipped:
        with spans.provider.get_tracer("mine").start_as_current_span("call the carrier"):
            return Shipped(id=paid.id)

    async with world.running(payments, shipping):
        (saga,) = await world.publish(Placed(id="o"))
        await eventually(lambda: spans.all("process payments") and spans.all("commit payments"))
        await eventually(lambda: spans.all("send shipments"))
    created, pay, shipped = spans.one("create orders"), spans.one("process orders"), spans.one("process payments")
    assert {span.context.trace_id for span in spans.all()} == {created.context.trace_id}
    assert parent_of(created) is None
    assert [parent_of(pay), parent_of(shipped)] == [id_of(created), id_of(pay)]
    assert parent_of(spans.one("call the carrier")) == id_of(shipped), "also in a thread"
    for name, parent in (("send orders", created), ("poll orders", created), ("commit orders", pay)):
        assert parent_of(spans.one(name)) == id_of(parent), name
    for name, parent in (("send payments", pay), ("poll payments", pay), ("commit payments", shipped)):
        assert parent_of(spans.one(name)) == id_of(parent), name
    (paid,) = await world.records("payments")
    assert traceparent(paid) == f"00-{pay.context.trace_id:032x}-{id_of(pay):016x}-01"
    assert pay.attributes["messaging.message.conversation_id"] == saga


async def test_spans_say_what_the_conventions_ask_for(memory_world, spans):
    async with memory_world.running(paying()):
        (saga,) = await memory_world.publish(Placed(id="o"))
        await eventually(lambda: spans.all("commit orders"))
    (record,) = await memory_world.records("orders")
    process = spans.one("process orders")
    assert process.kind is SpanKind.CONSUMER
    assert dict(process.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.destination.partition.id": str(record.partition),
        "messaging.consumer.group.name": "payments",
        "messaging.message.id": saga,
        "messaging.message.conversation_id": saga,
        "messaging.kafka.offset": record.offset,
        "choreo.handler": "pay",
        "choreo.event_type": "Placed",
    }
    assert process.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    about = {
        span.name: (span.kind, span.attributes["messaging.operation.type"])
        for span in spans.all()
        if "orders" in span.name
    }
    assert about == {
        "create orders": (SpanKind.PRODUCER, "create"),
        "send orders": (SpanKind.PRODUCER, "send"),
        "poll orders": (SpanKind.CLIENT, "receive"),
        "process orders": (SpanKind.CONSUMER, "process"),
        "commit orders": (SpanKind.CLIENT, "settle"),
    }


async def test_operations_on_many_traces_are_linked_to_them(memory_world, spans):
    await memory_world.publish(*(Placed(id=f"o{n}") for n in range(10)))
    async with memory_world.running(paying()):
        await eventually(lambda: len(spans.all("process orders")) == 10)
        await eventually(lambda: sum(len(links_of(span)) or 1 for span in spans.all("send payments")) >= 10)
        await eventually(lambda: sum(len(links_of(span)) or 1 for span in spans.all("commit orders")) >= 10)
    created = {id_of(span) for span in spans.all("create orders")}
    handled = {id_of(span) for span in spans.all("process orders")}
    assert links_of(spans.one("send orders")) == created
    assert parent_of(spans.one("send orders")) is None
    assert spans.one("send orders").attributes["messaging.batch.message_count"] == 10
    for name, wanted in (("poll orders", created), ("send payments", handled), ("commit orders", handled)):
        found = set()
        for span in spans.all(name):
            found |= links_of(span) or {parent_of(span)}
        assert found == wanted, name


async def test_one_event_that_is_published_is_sent_in_its_own_span(memory_world, spans):
    async with connect(memory_world.settings(), source="web", log=memory_world.log) as bus:
        with spans.provider.get_tracer("mine").start_as_current_span("POST /orders"):
            await bus.publish(Placed(id="o"))
    send, request = spans.one("send orders"), spans.one("POST")
    assert parent_of(send) == id_of(request)
    (record,) = await memory_world.records("orders")
    assert traceparent(record).split("-")[2] == f"{id_of(send):016x}"


async def test_events_of_a_transaction_carry_the_trace_of_who_wrote_them(memory_world, spans):
    async with connect(memory_world.settings(), source="web", log=memory_world.log) as bus:
        with spans.provider.get_tracer("mine").start_as_current_span("POST /orders"):
            async with bus.transaction(f"sqlite:///{memory_world.folder}/web.db") as tx:
                tx.publish(Placed(id="o"))
        await eventually(lambda: spans.all("send orders"))
    created = spans.one("create orders")
    assert parent_of(created) == id_of(spans.one("POST"))
    assert parent_of(spans.one("send orders")) == id_of(created)


async def test_the_span_lasts_as_long_as_the_attempts_and_tells_of_each(memory_world, spans):
    calls = []
    service = Service("payments")

    @service.on(Placed, retry=AT_ONCE)
    async def pay(order: Placed, ctx: Context) -> None:
        calls.append(trace.get_current_span())
        if ctx.attempt < 3:
            raise TimeoutError("no answer")

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await eventually(lambda: spans.all("process orders"))
    process = spans.one("process orders")
    assert len({id(span) for span in calls}) == 1
    assert [event.attributes["exception.type"] for event in process.events] == ["TimeoutError"] * 2
    assert [event.attributes["choreo.attempt"] for event in process.events] == [1, 2]
    assert process.status.status_code is StatusCode.UNSET, "it did well in the end"


async def test_what_fails_for_good_says_so_and_goes_on_in_the_same_trace_when_it_is_redriven(memory_world, spans):
    broken = [True]
    service = Service("payments")

    @service.on(Placed, retry=Retry(attempts=1))
    async def pay(order: Placed) -> Paid:
        if broken:
            raise ValueError("no such card")
        return Paid(id=order.id)

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await eventually(lambda: spans.all("process orders"))
        failed = spans.one("process orders")
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.status.description == "ValueError: no such card"
        assert failed.attributes["error.type"] == "ValueError"
        await memory_world.read_to_the_end(service)
        await eventually(lambda: spans.all("send dlq.payments"))
        broken.clear()
        chosen = Selection(service="payments")
        async with dead_letters(memory_world.log, service="payments", values_of=chosen) as letters:
            async for _ in letters.resolve(chosen, Reason(kind="redriven", by="ada", why="mended")):
                pass
        await eventually(lambda: len(spans.all("process orders")) == 2)
    again = spans.all("process orders")[1]
    assert parent_of(again) == parent_of(failed) == id_of(spans.one("create orders"))
    assert again.status.status_code is StatusCode.UNSET


async def test_the_way_through_the_retry_topic_stays_in_the_trace(memory_world, spans):
    calls = []
    service = Service("payments")

    @service.on(Placed, retry=Retry(attempts=3, delay="1ms", max_delay="1ms", in_place=0))
    async def pay(order: Placed) -> Paid:
        calls.append(order)
        if len(calls) == 1:
            raise TimeoutError
        return Paid(id=order.id)

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="o"))
        await eventually(lambda: len(spans.all("process orders")) == 2)
    first, second = spans.all("process orders")
    assert parent_of(first) == parent_of(second) == id_of(spans.one("create orders"))
    assert [first.status.status_code, second.status.status_code] == [StatusCode.ERROR, StatusCode.UNSET]
    assert parent_of(spans.one("send retry.payments")) == id_of(first)


async def test_a_business_error_that_is_declared_is_no_error_of_the_span(memory_world, spans):
    service = Service("stock")

    @service.on(Ordered, retry=Retry(business={ValueError: lambda order, _: OutOfStock(id=order.id)}))
    async def reserve(order: Ordered) -> Reserved | OutOfStock:
        raise ValueError

    async with memory_world.running(service):
        await tell(memory_world, "s", Ordered(id="o"))
        await eventually(lambda: spans.all("send stock"))
    process = spans.one("process orders")
    assert process.status.status_code is StatusCode.UNSET
    (record,) = await memory_world.records("stock")
    assert traceparent(record).split("-")[2] == f"{id_of(process):016x}"


async def test_a_join_is_the_child_of_the_last_event_and_linked_to_the_others(memory_world, spans):
    service = Service("shipping")

    @service.join(Charged, Reserved)
    async def ship(charged: Charged, reserved: Reserved) -> Sent:
        return Sent(id=charged.id)

    async with memory_world.running(service):
        await tell(memory_world, "s", Charged(id="o"))
        await memory_world.read_to_the_end(service)
        assert not spans.all("process"), "nothing was called"
        await tell(memory_world, "s", Reserved(id="o"))
        await eventually(lambda: spans.all("process stock"))
    process = spans.one("process stock")
    assert parent_of(process) == id_of(spans.one("send stock"))
    assert links_of(process) == {id_of(spans.one("send charges"))}


async def test_a_compensation_is_the_child_of_the_failure_and_linked_to_what_it_undoes(memory_world, spans):
    service = Service("payments")

    @service.on(Ordered)
    async def charge(order: Ordered) -> Charged:
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,))
    async def refund(charged: Charged, failure: OutOfStock) -> Refunded:
        return Refunded(id=charged.id)

    async with memory_world.running(service):
        await tell(memory_world, "s", Ordered(id="o"))
        await memory_world.read_to_the_end(service)
        await tell(memory_world, "s", OutOfStock(id="o"))
        await eventually(lambda: spans.all("send refunds"))
    step, undo = spans.one("process orders"), spans.one("process stock")
    assert parent_of(undo) == id_of(spans.one("send stock"))
    assert links_of(undo) == {id_of(step)}
    (refunded,) = await memory_world.records("refunds")
    assert traceparent(refunded).split("-")[2] == f"{id_of(undo):016x}"


async def test_a_deadline_is_handled_in_the_trace_of_what_set_it(spans):
    service = Service("orders")

    @service.deadline(Ordered, within="1m")
    async def expire(order: Ordered) -> OutOfStock:
        return OutOfStock(id=order.id)

    async with testing.running(service) as world:
        await world.publish(Ordered(id="o"))
        await world.settle()
        assert not spans.all("process")
        await world.advance("2m")
        await world.settle()
    assert parent_of(spans.one("process orders")) == id_of(spans.one("send orders"))


async def test_a_child_saga_has_a_trace_of_its_own_that_is_linked(memory_world, spans):
    service = Service("orders")

    @service.on(Ordered)
    async def split(order: Ordered, ctx: Context) -> Charged | None:
        ctx.start_saga(Charged(id=order.id))
        return None

    async with memory_world.running(service):
        await tell(memory_world, "s", Ordered(id="o"))
        await eventually(lambda: spans.all("create charges"))
    parent, child = spans.one("process orders"), spans.one("create charges")
    assert child.context.trace_id != parent.context.trace_id
    assert links_of(child) == {id_of(parent)}
    (record,) = await memory_world.records("charges")
    assert traceparent(record).split("-")[2] == f"{id_of(child):016x}"


async def test_a_batch_is_one_span_that_is_linked_to_all_its_events(memory_world, spans):
    service = Service("lake")
    seen = []

    @service.batch(Placed, max_size=100, max_age="10ms")
    async def load(orders: list[Placed], ctx: BatchContext) -> list[Shipped]:
        seen.append((len(orders), trace.get_current_span().get_span_context().span_id))
        return [Shipped(id="done")]

    await memory_world.publish(*(Placed(id="same", n=n) for n in range(5)))
    async with memory_world.running(service):
        await eventually(lambda: len(spans.all("process orders")) == len(seen) and sum(n for n, _ in seen) == 5)
    found = set()
    for span in spans.all("process orders"):
        found |= links_of(span) or {parent_of(span)}
    assert found == {id_of(span) for span in spans.all("create orders")}
    assert [span_id for _, span_id in seen] == [id_of(span) for span in spans.all("process orders")]
    shipped = await memory_world.records("shipments")
    assert Counter(traceparent(record).split("-")[2] for record in shipped) == Counter(f"{id_:016x}" for _, id_ in seen)


async def test_what_is_not_sampled_is_passed_on_and_nothing_is_made(memory_world, monkeypatch):
    spans, inside = Spans(ParentBased(ALWAYS_OFF)), []
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    service = Service("payments")

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        inside.append(trace.get_current_span().get_span_context())
        with spans.provider.get_tracer("mine").start_as_current_span("call") as call:
            inside.append(call)
        return Paid(id=order.id)

    def never(*_, **__):
        raise AssertionError("a span was made on the way of a record that is not sampled")

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="warm up, the bus decides here"))
        monkeypatch.setattr(instances["payments"]._operations.tracing._tracer, "start_span", never)
        await eventually(lambda: len(inside) == 2)
        await memory_world.read_to_the_end(service)
    (placed,), (paid,) = await memory_world.records("orders"), await memory_world.records("payments")
    assert traceparent(placed).endswith("-00")
    assert traceparent(paid) == traceparent(placed)
    current, call = inside
    assert not current.trace_flags.sampled
    assert f"{current.trace_id:032x}" == traceparent(placed).split("-")[1]
    assert not call.is_recording(), "what the handler calls is not sampled either"
    assert spans.all() == []


async def test_what_a_handler_leaves_behind_is_recorded_in_no_later_trace(memory_world, monkeypatch):
    spans, left, go = Spans(ParentBased(ALWAYS_OFF)), [], asyncio.Event()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    service, tracer = Service("payments", concurrency=1), spans.provider.get_tracer("mine")

    async def later() -> None:
        await go.wait()
        with tracer.start_as_current_span("left behind"):
            pass

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        if order.id == "first":
            left.append(asyncio.create_task(later()))
        else:
            go.set()
            await left[0]
        return Paid(id=order.id)

    async with memory_world.running(service):
        await memory_world.publish(Placed(id="first"))
        await eventually(lambda: left)
        span = NonRecordingSpan(SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1)))
        with trace.use_span(span):
            await memory_world.publish(Placed(id="second"))
        await memory_world.read_to_the_end(service)
    assert left[0].done()
    names = [each.name for each in spans.all()]
    assert "process orders" in names, "the second one is recorded"
    assert "left behind" not in names


async def test_without_a_provider_the_trace_of_others_is_passed_on(memory_world):
    there = SimpleNamespace(traceparent=f"00-{7:032x}-{9:016x}-01")
    service = paying()
    async with (
        memory_world.running(service) as instances,
        connect(memory_world.settings(), log=memory_world.log) as bus,
    ):
        assert instances["payments"]._operations.tracing is None
        await bus._prepare({Placed})
        record = bus._record(
            Placed(id="o"), SimpleNamespace(traceparent=there.traceparent, tracestate="a=b"), None, None, "e"
        )
        await bus._producer.append([record])
        await memory_world.read_to_the_end(service)
        await eventually(lambda: instances["payments"].stats.sent["payments"] == 1)
    (paid,) = await memory_world.records("payments")
    assert traceparent(paid) == there.traceparent
    assert dict(paid.headers)["tracestate"] == b"a=b"


async def test_a_partition_that_goes_ends_the_span_of_a_record_that_waits(memory_world, spans):
    service = Service("payments")

    @service.on(Placed, retry=Retry(delay="1h", max_delay="1h", in_place="2h", within="9h"))
    async def pay(order: Placed) -> None:
        raise TimeoutError

    async with memory_world.running(service) as instances:
        await memory_world.publish(Placed(id="o"))
        await eventually(lambda: instances["payments"].stats.retries == 1)
        assert not spans.all("process orders")
    assert spans.one("process orders").attributes["error.type"] == "abandoned"


async def test_log_lines_of_a_handler_name_the_span(memory_world, spans):
    service = Service("payments")

    @service.on(Placed)
    async def pay(order: Placed, ctx: Context) -> None:
        ctx.log.info("paying")

    with structlog.testing.capture_logs() as lines:
        async with memory_world.running(service):
            await memory_world.publish(Placed(id="o"))
            await eventually(lambda: spans.all("process orders"))
    (line,) = [line for line in lines if line["event"] == "paying"]
    process = spans.one("process orders")
    assert line["trace_id"] == f"{process.context.trace_id:032x}"
    assert line["span_id"] == f"{id_of(process):016x}"


def test_the_instrumentation_of_the_kafka_client_is_warned_of_once(monkeypatch, spans):
    class Instrumentor:
        is_instrumented_by_opentelemetry = True

    module = SimpleNamespace(ConfluentKafkaInstrumentor=Instrumentor)
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.instrumentation.confluent_kafka", module)
    monkeypatch.setattr(tracing, "_warned", False)
    with structlog.testing.capture_logs() as lines:
        tracing.tracing_of("one")
        tracing.tracing_of("two")
    assert [line["log_level"] for line in lines] == ["warning"]
    assert "confluent-kafka" in lines[0]["event"]
