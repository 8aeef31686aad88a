"""Every failure is seen in three places: a line of the log, a metric, and what lies in the topics for the saga's page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from choreo import Context, Retry, Service, connect
from choreo.log.port import NewRecord, TopicPartition
from choreo.observe.metrics import registry
from choreo.store import make_store
from tests.integration.runtime_world import AT_ONCE, Paid, Placed, World, unique
from tests.integration.saga_world import Charged, Ordered, OutOfStock, Refunded, Reserved, tell
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("alone")
LONG = {"delay": "1h", "max_delay": "1h", "within": "9h"}


@dataclass
class Failure:
    """A kind of failure, and where it is to be seen.

    Attributes:
        service: fails in this way.
        begin: what makes it.
        says, level: of the line.
        bound: what the line names beside the service.
        metric, labels: what counts it.
        topic, headers: where the record lies, and what it says there; empty if it lies nowhere else than before.
        before: what happens before the service runs.
    """

    service: Service
    begin: Callable[[World], Awaitable[Any]]
    says: str
    level: str
    bound: tuple[str, ...]
    metric: str
    labels: dict[str, str]
    topic: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[World], Awaitable[None]] | None = None


IDS = ("handler", "correlation_id", "event_id", "causation_id", "record", "error")


async def place(world: World) -> None:
    await world.publish(Placed(id="o"))


def failing(retry: Retry, error: Exception, returns: object = None) -> Service:
    service = Service("payments")

    @service.on(Placed, retry=retry)
    async def pay(order: Placed, ctx: Context) -> Paid:
        if returns is not None:
            return returns  # type: ignore[return-value]
        raise error

    return service


def letter(kind: str, service: Service, *, says: str = "handler gave up", **options: Any) -> Failure:
    labels = {"service": "payments", "handler": "pay", "kind": kind}
    headers = {"choreo.dlq.kind": kind, "choreo.dlq.handler": "pay", "__dlq.errors.group": "payments"}
    return Failure(
        service, place, says, "error", (*IDS, "kind", "stage", "attempts"), "choreo_dead_letters_total", labels,
        "dlq.payments", headers, **options,
    )  # fmt: skip


def retried(where: str) -> Failure:
    retry = Retry(**LONG, in_place="2h") if where == "lane" else Retry(**LONG, in_place=0)
    return Failure(
        failing(retry, TimeoutError("no answer")), place, "handler failed, trying again", "warning", (*IDS, "attempt"),
        "choreo_retries_total", {"service": "payments", "handler": "pay", "where": where},
        "retry.payments" if where == "topic" else "", {"choreo.retry.handler": "pay", "choreo.retry.attempt": "1"},
    )  # fmt: skip


def undecodable() -> Failure:
    async def spoil(world: World) -> None:
        await world.log.producer().append([NewRecord("orders", b"o", b"\xde\xad", [("ce_type", b"Placed")])])

    service = failing(AT_ONCE, ValueError())
    labels = {"service": "payments", "handler": "", "kind": "undecodable"}
    return Failure(
        service, spoil, "record cannot be read", "error", ("record", "error"), "choreo_dead_letters_total", labels,
        "dlq.payments", {"choreo.dlq.kind": "undecodable", "choreo.dlq.stage": "decode"},
    )  # fmt: skip


def killer() -> Failure:
    async def die_twice(world: World) -> None:
        await place(world)
        (record,) = await world.records("orders")
        at = TopicPartition("orders", record.partition)
        for _ in range(2):
            store = make_store(world.settings().store.replace("{service}", "payments"))
            await store.open("payments")
            await store.take_over([at])
            await store.suspect(at, record.offset)
            await store.close()

    async def nothing(_: World) -> None: ...

    labels = {"service": "payments", "handler": "", "kind": "killer"}
    return Failure(
        failing(AT_ONCE, ValueError()), nothing, "record kills the process", "error",
        ("record", "error", "correlation_id", "event_id"),
        "choreo_dead_letters_total", labels, "dlq.payments", {"choreo.dlq.kind": "killer"}, die_twice,
    )  # fmt: skip


def compensation() -> Failure:
    service = Service("payments")

    @service.on(Ordered)
    async def charge(order: Ordered) -> Charged:
        return Charged(id=order.id)

    @service.compensates(charge, on=(OutOfStock,), retry=AT_ONCE)
    async def refund(charged: Charged, failure: OutOfStock) -> Refunded:
        raise TimeoutError

    async def fail(world: World) -> None:
        await tell(world, "s", Ordered(id="o"))
        await eventually(lambda: world.rows("payments", "SELECT 1 FROM choreo_notes"))
        await tell(world, "s", OutOfStock(id="o"))

    labels = {"service": "payments", "handler": "refund", "outcome": "failed"}
    return Failure(
        service, fail, "compensation gave up", "critical", (*IDS, "kind", "stage"), "choreo_compensations_total", labels,
        "dlq.payments", {"choreo.dlq.kind": "compensation", "choreo.dlq.handler": "refund"},
    )  # fmt: skip


def breaker() -> Failure:
    async def fail(world: World) -> None:
        await world.publish(*(Placed(id=f"o{n}") for n in range(40)))

    service = failing(Retry(**LONG, in_place="2h"), TimeoutError("gateway"))
    labels = {"service": "payments", "handler": "pay"}
    return Failure(
        service, fail, "circuit breaker opens", "error", ("handler", "waiting"), "choreo_breaker_openings_total", labels
    )


def declared() -> Failure:
    service = Service("payments")

    @service.on(Ordered, retry=Retry(business={ValueError: lambda order, _: OutOfStock(id=order.id)}))
    async def pay(order: Ordered) -> Reserved | OutOfStock:
        raise ValueError("sold out")

    labels = {
        "messaging_system": "kafka", "messaging_operation_name": "process", "handler": "pay", "error_type": "ValueError",
        "messaging_consumer_group_name": "payments", "messaging_destination_name": "orders",
    }  # fmt: skip
    return Failure(
        service, lambda world: tell(world, "s", Ordered(id="o")), "business error declared as a failure", "info", IDS,
        "messaging_process_duration_seconds_count", labels, "stock", {"ce_type": "OutOfStock", "ce_correlationid": "s"},
    )  # fmt: skip


FAILURES: dict[str, Callable[[], Failure]] = {
    "tried again in its lane": lambda: retried("lane"),
    "tried again through the retry topic": lambda: retried("topic"),
    "no attempts left": lambda: letter("exhausted", failing(AT_ONCE, TimeoutError("no answer"))),
    "a business error": lambda: letter("rejected", failing(Retry(business=(ValueError,)), ValueError("no card"))),
    "a fatal error": lambda: letter("fatal", failing(Retry(fatal=(KeyError,)), KeyError("bug"))),
    "an undeclared emission": lambda: letter("undeclared", failing(AT_ONCE, ValueError(), Placed(id="x"))),
    "no event": undecodable,
    "a killer": killer,
    "a compensation": compensation,
    "an outage": breaker,
    "a declared failure": declared,
}


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_failure_is_seen_in_the_log_in_the_metrics_and_in_the_topics(memory_world, kind):
    failure = FAILURES[kind]()
    with capture_logs() as lines:
        if failure.before is not None:
            async with connect(memory_world.settings(), log=memory_world.log):
                await failure.before(memory_world)
        async with memory_world.running(failure.service):
            await failure.begin(memory_world)
            counted = await eventually(lambda: registry.get_sample_value(failure.metric, failure.labels))
            if failure.topic:
                (headers,) = await eventually(lambda: _headers(memory_world, failure.topic))
                assert {name: headers.get(name) for name in failure.headers} == failure.headers
    assert counted == 1
    (line,) = [line for line in lines if line["event"].startswith(failure.says)]
    assert line["log_level"] == failure.level
    assert line["service"] == "payments"
    assert [name for name in failure.bound if name not in line] == []


async def _headers(world: World, topic: str) -> list[dict[str, str]]:
    if topic not in await world.log.topics():
        return []
    return [{name: text.decode() for name, text in record.headers} for record in await world.records(topic)]


async def test_a_batch_that_fails_says_so_for_all_and_then_for_the_record(memory_world):
    service = Service("payments")

    @service.batch(Placed, max_size=4, max_age="10ms", retry=Retry(fatal=(ValueError,)))
    async def load(orders: list[Placed]) -> None:
        if any(order.n == 2 for order in orders):
            raise ValueError("no such account")

    await memory_world.publish(*(Placed(id="same", n=n) for n in range(4)))
    with capture_logs() as lines:
        async with memory_world.running(service):
            labels = {"service": "payments", "handler": "load", "kind": "fatal"}
            await eventually(lambda: registry.get_sample_value("choreo_dead_letters_total", labels) == 1)
            (headers,) = await eventually(lambda: _headers(memory_world, "dlq.payments"))
    assert headers["choreo.dlq.kind"] == "fatal"
    split = [line for line in lines if line["event"].startswith("batch failed, its halves")]
    assert [(line["events"], line["log_level"]) for line in split] == [(4, "warning"), (2, "warning")]
    (buried,) = [line for line in lines if line["event"].startswith("handler gave up")]
    assert buried["correlation_id"] == headers["ce_correlationid"]


async def test_copies_on_two_instances_are_a_race_and_no_trouble(memory_world):
    """One event in two partitions, handled by two instances at once: the inbox decides, and nobody needs to look."""
    both, slow = asyncio.Barrier(2), asyncio.Event()
    services = [Service("payments"), Service("payments")]
    for service in services:

        @service.on(Placed)
        async def pay(order: Placed) -> Paid:
            if not slow.is_set():
                await both.wait()
            return Paid(id=order.id)

    async with connect(memory_world.settings(), source="web", log=memory_world.log) as bus:
        await bus._prepare({Placed})
        record = bus._record(Placed(id="o"), None, None, None, "one")
    copies = [record._replace(partition=number) for number in (0, 1, 2, 3)]
    with capture_logs() as lines:
        async with memory_world.running(services[0]) as here, memory_world.running(services[1]) as there:
            one, other = here["payments"], there["payments"]
            await eventually(lambda: _own_two(one) and _own_two(other))
            await memory_world.log.producer().append(copies)
            await eventually(lambda: one.stats.failures["copy"] + other.stats.failures["copy"])
            slow.set()
            await memory_world.read_to_the_end(services[0])
    assert len(unique(await memory_world.events("payments"))) == 1
    race = [line for line in lines if "copy of an event" in line["event"]]
    assert {line["log_level"] for line in race} == {"info"}
    assert [line for line in lines if line["log_level"] in {"error", "critical"}] == []


def _own_two(instance: Any) -> bool:
    return sum(at.topic == "orders" for at in instance._owned) == 2
