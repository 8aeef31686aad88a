"""What users write, as the type checker sees it: this file must pass `mypy --strict`.

A `type: ignore` here is an assertion: strict mode reports it when the mistake on its line is no longer found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, assert_type

import choreo
from choreo import (
    BatchContext,
    Bus,
    Choreography,
    Context,
    Event,
    Failure,
    Metadata,
    Retry,
    Service,
    Settings,
    SyncBatchContext,
    SyncContext,
)
from choreo.testing import Saga, World, running


class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    total: Decimal = Decimal(0)


class PaymentCharged(Event, topic="payments", key="order_id", name="shop.PaymentCharged"):
    order_id: str
    receipt: str


class PaymentDeclined(Failure, topic="payments", key="order_id"):
    order_id: str
    reason: str


@dataclass
class Clients:
    gateway: Callable[[str, Decimal], Coroutine[Any, Any, str]]


@asynccontextmanager
async def lifespan() -> AsyncIterator[Clients]:
    async def charge(order_id: str, total: Decimal) -> str:
        return f"{order_id} {total}"

    yield Clients(charge)


payments = Service("payments", store="sqlite:///payments.db", lifespan=lifespan, concurrency=10)


@payments.on(OrderPlaced, retry=Retry(attempts=3, delay="1s", transient=(TimeoutError,)))
async def charge(order: OrderPlaced, ctx: Context) -> PaymentCharged | PaymentDeclined:
    if order.total > Decimal(1000):
        return PaymentDeclined(order_id=order.order_id, reason="too much")
    receipt = await ctx.state.gateway(order.order_id, order.total)
    await ctx.db.execute("INSERT INTO receipts VALUES (?, ?)", (order.order_id, receipt))
    ctx.log.info("charged", total=str(order.total))
    return PaymentCharged(order_id=order.order_id, receipt=receipt)


lake = Service("lake")


@lake.batch(PaymentCharged, max_size=100, max_age="5s", per="key")
async def load(charged: list[PaymentCharged], ctx: BatchContext) -> None:
    await ctx.db.execute_many("INSERT INTO loaded VALUES (?)", [(one.order_id,) for one in charged])
    assert_type(ctx.metadata, tuple[Metadata, ...])
    assert_type(ctx.idempotency_key, str)


@lake.batch(PaymentDeclined)
def archive(declined: list[PaymentDeclined], ctx: SyncBatchContext) -> None:
    assert_type(ctx.db.execute("INSERT INTO declined VALUES (?)", (len(declined),)), int)


@payments.on(PaymentCharged, PaymentDeclined, name="tell")
def tell_blocking(event: PaymentCharged | PaymentDeclined, ctx: SyncContext) -> None:
    ctx.db.execute("INSERT INTO told VALUES (?)", (event.order_id,))


@payments.on(PaymentDeclined)
async def fan_out(event: PaymentDeclined) -> list[OrderPlaced]:
    event.order_id = "o2"  # type: ignore[misc]
    return [OrderPlaced(order_id=event.order_id)]


payments.on(int)  # type: ignore[arg-type]


@payments.compensates(charge, on=(PaymentDeclined,))
async def refund(charged: PaymentCharged, failure: PaymentDeclined, ctx: Context) -> None:
    ctx.log.info("refunded", receipt=charged.receipt, why=failure.reason)


@payments.join(OrderPlaced, PaymentCharged, by="order_id", unless=(PaymentDeclined,))
async def ship(order: OrderPlaced, charged: PaymentCharged) -> None: ...


@payments.join(OrderPlaced, PaymentCharged, count=lambda order: 2)
def gather(order: OrderPlaced, charges: list[PaymentCharged], ctx: SyncContext) -> None:
    assert_type(ctx.step("sum", len, charges), int)


@payments.deadline(OrderPlaced, within="15m", unless=(PaymentCharged, PaymentDeclined))
async def expire(order: OrderPlaced, ctx: Context) -> PaymentDeclined | OrderPlaced:
    async def ask(order_id: str) -> Decimal:
        return Decimal(len(order_id))

    assert_type(await ctx.step("ask", ask, order.order_id), Decimal)
    assert_type(await ctx.step("count", len, order.order_id), int)
    assert_type(ctx.start_saga(OrderPlaced(order_id="o2")), str)
    return PaymentDeclined(order_id=order.order_id, reason="late")


payments.compensates(charge, on=(OrderPlaced,))  # type: ignore[arg-type]
payments.deadline(OrderPlaced, every="1d", times="3")  # type: ignore[arg-type]


async def a_decorated_handler_keeps_its_type(order: OrderPlaced, ctx: Context) -> None:
    assert_type(order.total, Decimal)
    assert_type(await charge(order, ctx), PaymentCharged | PaymentDeclined)
    assert_type(await fan_out(PaymentDeclined(order_id="o1", reason="")), list[OrderPlaced])
    await charge(order)  # type: ignore[call-arg]


async def publish() -> None:
    async with choreo.connect() as bus:
        assert_type(bus, Bus)
        assert_type(await bus.publish(OrderPlaced(order_id="o1"), correlation_id="c1"), str)
        assert_type(await bus.publish(OrderPlaced(order_id="o2"), parent="c1"), str)
        assert_type(await bus.publish_many([OrderPlaced(order_id="o1")]), list[str])


def publish_blocking() -> None:
    with choreo.connect_sync(Settings(log="memory://")) as bus:
        assert_type(bus.publish(OrderPlaced(order_id="o1")), str)


async def test() -> None:
    async with running([payments]) as world:
        assert_type(world, World)
        saga = await world.publish(OrderPlaced(order_id="o1"))
        assert_type(saga, Saga)
        assert_type(world.emitted(PaymentCharged), list[PaymentCharged])
        assert_type(saga.emitted(PaymentDeclined), list[PaymentDeclined])
        world.crash_at(payments, "before commit")
        world.crash_at(payments, "sometime")  # type: ignore[arg-type]
        world.fail(charge, TimeoutError, times=2)


def look() -> str:
    return Choreography.of([payments]).to_mermaid()
