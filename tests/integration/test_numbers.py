"""What a running service shows of itself."""

from __future__ import annotations

import asyncio

import pytest

from choreo import Context, Retry, Service, connect
from choreo.errors import LogUnavailableError
from choreo.observe.metrics import exposition, registry
from tests.integration.runtime_faults import Faults, FaultyLog
from tests.integration.runtime_world import AT_ONCE, Paid, Placed, World
from tests.integration.saga_world import Ordered, OutOfStock
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("alone")


def value(name, **labels):
    return registry.get_sample_value(name, labels or {"service": "payments"})


async def test_what_waits_shows_how_long_and_where(memory_world):
    go = asyncio.Event()
    service = Service("payments", concurrency=1)

    @service.on(Placed, retry=Retry(delay="1h", max_delay="1h", within="9h", in_place="2h"))
    async def pay(order: Placed) -> None:
        if order.n == 0:
            raise TimeoutError
        await go.wait()

    async with memory_world.running(service) as instances:
        payments = instances["payments"]
        await memory_world.publish(Placed(id="failed", n=0))
        await eventually(lambda: payments.stats.retries == 1)
        await memory_world.publish(*(Placed(id=f"o{n}", n=n) for n in range(1, 4)))
        await eventually(lambda: value("choreo_records_in_flight") == 4)
        await eventually(lambda: value("choreo_lanes", service="payments", state="running") == 1)
        assert value("choreo_lanes", service="payments", state="deferred") == 1
        assert value("choreo_lanes", service="payments", state="ready") == 2
        assert value("choreo_partitions") == 8, "four of each topic"
        first = value("choreo_time_lag_seconds", service="payments", topic="orders")
        assert first > 0
        await eventually(lambda: value("choreo_time_lag_seconds", service="payments", topic="orders") > first)
        assert value("choreo_time_lag_seconds", service="payments", topic="retry.payments") == 0
        assert value("choreo_rebalances_total", service="payments", kind="assigned") >= 1
        go.set()
    assert value("choreo_partitions") is None, "it has stopped"


async def test_a_log_that_takes_nothing_shows_in_the_outbox(memory_world):
    faults = Faults()
    world = World(FaultyLog(memory_world.log, faults), memory_world.folder)
    service = Service("payments")

    @service.on(Placed)
    async def pay(order: Placed) -> Paid:
        return Paid(id=order.id)

    async with world.running(service, stop_grace=0.1) as instances:
        async with connect(memory_world.settings(), log=memory_world.log) as bus:
            faults.fail("append", LogUnavailableError("the log is away"), times=10**9)
            await bus.publish_many([Placed(id="a"), Placed(id="b")])
        await eventually(lambda: value("choreo_outbox_records") == 2)
        await eventually(lambda: value("choreo_outbox_age_seconds") > 0)
        failed = {
            "messaging_system": "kafka", "messaging_operation_name": "send", "messaging_operation_type": "send",
            "messaging_client_id": "payments", "error_type": "LogUnavailableError",
        }  # fmt: skip
        await eventually(lambda: value("messaging_client_operation_duration_seconds_count", **failed))
        faults.none()
        await eventually(lambda: value("choreo_outbox_records") == 0)
        assert value("choreo_outbox_age_seconds") == 0
        assert instances["payments"].stats.sent["payments"] == 2


async def test_what_is_parked_and_what_timers_wait_for_shows(memory_world):
    service = Service("payments")

    @service.on(Ordered, retry=AT_ONCE)
    async def pay(order: Ordered) -> None:
        raise TimeoutError

    @service.deadline(Ordered, within="1h")
    async def expire(order: Ordered) -> OutOfStock:
        return OutOfStock(id=order.id)

    async with memory_world.running(service) as instances:
        await memory_world.publish(Ordered(id="o"))
        await eventually(lambda: instances["payments"].stats.dead_letters == 1)
        await memory_world.read_to_the_end(service)
        text, content_type = await exposition()
        assert content_type.startswith("text/plain")
        assert b'choreo_timers_pending{service="payments"} 1.0' in text
        assert b'choreo_timers_late_seconds{service="payments"} 0.0' in text
        assert b'choreo_parked_keys{service="payments"} 1.0' in text


async def test_compensations_and_publishers_are_counted(memory_world, alone):
    service = Service("payments")

    @service.on(Ordered)
    async def charge(order: Ordered) -> Paid:
        return Paid(id=order.id)

    @service.compensates(charge, on=(OutOfStock,))
    async def refund(paid: Paid, failure: OutOfStock, ctx: Context) -> None: ...

    async with (
        memory_world.running(service) as instances,
        connect(memory_world.settings(), source="web", log=memory_world.log) as bus,
    ):
        saga = await bus.publish(Ordered(id="o"))
        await eventually(lambda: instances["payments"].stats.handled == 1)
        await bus.publish(OutOfStock(id="o"), correlation_id=saga)
        await eventually(
            lambda: value("choreo_compensations_total", service="payments", handler="refund", outcome="done") == 1
        )
        sent = {"messaging_system": "kafka", "messaging_operation_name": "send", "messaging_client_id": "web"}
        assert value("messaging_client_sent_messages_total", **sent, messaging_destination_name="orders") == 1
        assert len(alone) == 2
    assert not alone
