"""Five services whose sagas are tested: an order that is paid, reserved, shipped and rewarded, or undone.

    orders    owns the outcome: confirms when everything is there, fails at the first failure or at its deadline
    payments  a step, undone at any failure
    stock     a step, undone when the order has failed
    shipping  a join of both, which is a step itself
    loyalty   fans out: a step that emits several events, and one that runs for each of them

What a handler answers for a saga is written in the test's script; `ctx.state` is the instance's link to it. A step's effect is a row
of its own, without any unique column: what happens twice shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from choreo import Context, Event, Failure, Retry, Service
from tests.sagas.link import Link, RefusalError

WITHIN = 60
"""Seconds that an order has to be completed."""


class Placed(Event, topic="orders", key="order"):
    """An order; it gets so many stamps."""

    order: str
    stamps: int


class Completed(Event, topic="outcomes", key="order", ends="completed"):
    order: str


class Failed(Failure, topic="outcomes", key="order", ends="failed"):
    order: str
    why: str


class Charged(Event, topic="payments", key="order"):
    order: str
    token: str
    stamps: int


class Declined(Failure, topic="payments", key="order"):
    order: str


class Refunded(Event, topic="payments", key="order"):
    order: str
    token: str


class Reserved(Event, topic="stock", key="order"):
    order: str
    token: str


class OutOfStock(Failure, topic="stock", key="order"):
    order: str


class Shipped(Event, topic="shipments", key="order"):
    order: str
    token: str


class Rejected(Failure, topic="shipments", key="order"):
    order: str


class Recalled(Event, topic="shipments", key="order"):
    order: str
    token: str


class Awarded(Event, topic="points", key="order"):
    order: str
    token: str
    number: int


class Refused(Failure, topic="points", key="order"):
    order: str


class Stamped(Event, topic="points", key="order"):
    order: str
    token: str


class Revoked(Event, topic="points", key="order"):
    order: str
    token: str


TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    number INTEGER PRIMARY KEY, kind TEXT, handler TEXT, saga TEXT, token TEXT, event_id TEXT
);
CREATE TABLE IF NOT EXISTS outcomes (saga TEXT, outcome TEXT);
"""


@asynccontextmanager
async def _linked() -> AsyncIterator[Link]:
    yield Link.starting


def _service(name: str) -> Service:
    return Service(name, tables=TABLES, lifespan=_linked, concurrency=8)


orders, payments, stock, shipping, loyalty = map(_service, ("orders", "payments", "stock", "shipping", "loyalty"))
SERVICES = (orders, payments, stock, shipping, loyalty)

IN_PLACE = Retry(attempts=2, delay=0, max_delay=0)
A_WHILE = Retry(attempts=2, delay="800ms")
FAR = Retry(attempts=2, delay="4s")
"""Longer than `in_place`: by way of the retry topic."""


async def _write(ctx: Context, kind: str, handler: str, saga: str, token: str) -> None:
    row = (kind, handler, saga, token, ctx.event_id)
    await ctx.db.execute("INSERT INTO effects (kind, handler, saga, token, event_id) VALUES (?, ?, ?, ?, ?)", row)


async def _step(ctx: Context, handler: str, saga: str) -> str | None:
    """Take effect; the token of the effect, or None if the answer is another."""
    answer = await ctx.state.begin(handler, saga)
    if answer in {"refuses", "nothing"}:
        return None
    token = f"{handler}:{ctx.event_id}"
    await _write(ctx, "did", handler, saga, token)
    await ctx.state.end(handler, saga, answer)
    return token


async def _undo(ctx: Context, step: str, handler: str, saga: str, token: str) -> None:
    answer = await ctx.state.begin(handler, saga)
    await _write(ctx, "undid", step, saga, token)
    await ctx.state.end(handler, saga, answer)


async def _tell(ctx: Context, kind: str, handler: str, saga: str) -> None:
    answer = await ctx.state.begin(handler, saga)
    await _write(ctx, kind, handler, saga, "")
    await ctx.state.end(handler, saga, answer)


async def _decide(ctx: Context, saga: str, outcome: str) -> bool:
    """Give an order its outcome, unless it has one."""
    if await ctx.db.fetch_one("SELECT outcome FROM outcomes WHERE saga = ?", (saga,)):
        return False
    await ctx.db.execute("INSERT INTO outcomes VALUES (?, ?)", (saga, outcome))
    return True


# --- payments ---------------------------------------------------------------------------------------------------------


@payments.on(
    Placed, retry=Retry(attempts=2, delay="4s", business={RefusalError: lambda placed, _: Declined(order=placed.order)})
)
async def charge(placed: Placed, ctx: Context) -> Charged | Declined | None:
    await ctx.step("gateway", ctx.state.gateway, placed.order)
    if token := await _step(ctx, "charge", placed.order):
        return Charged(order=placed.order, token=token, stamps=placed.stamps)
    return Declined(order=placed.order) if ctx.state.refuses("charge", placed.order) else None


@payments.compensates(charge, on=(OutOfStock, Rejected, Refused, Failed), retry=FAR)
async def refund(charged: Charged, failure: OutOfStock | Rejected | Refused | Failed, ctx: Context) -> Refunded:
    await _undo(ctx, "charge", "refund", charged.order, charged.token)
    return Refunded(order=charged.order, token=charged.token)


# --- stock ------------------------------------------------------------------------------------------------------------


@stock.on(
    Placed,
    retry=Retry(
        attempts=2, delay=0, max_delay=0, business={RefusalError: lambda placed, _: OutOfStock(order=placed.order)}
    ),
)
async def reserve(placed: Placed, ctx: Context) -> Reserved | OutOfStock | None:
    if token := await _step(ctx, "reserve", placed.order):
        return Reserved(order=placed.order, token=token)
    return OutOfStock(order=placed.order) if ctx.state.refuses("reserve", placed.order) else None


@stock.compensates(reserve, on=(Failed,), retry=IN_PLACE)
async def put_back(reserved: Reserved, failure: Failed, ctx: Context) -> None:
    await _undo(ctx, "reserve", "put_back", reserved.order, reserved.token)


# --- shipping ---------------------------------------------------------------------------------------------------------


@shipping.join(Charged, Reserved, unless=(Failed,), retry=A_WHILE)
async def ship(charged: Charged, reserved: Reserved, ctx: Context) -> Shipped | Rejected | None:
    if token := await _step(ctx, "ship", charged.order):
        return Shipped(order=charged.order, token=token)
    return Rejected(order=charged.order) if ctx.state.refuses("ship", charged.order) else None


@shipping.compensates(ship, on=(Refused, Failed), retry=A_WHILE)
async def recall(shipped: Shipped, failure: Refused | Failed, ctx: Context) -> Recalled:
    await _undo(ctx, "ship", "recall", shipped.order, shipped.token)
    return Recalled(order=shipped.order, token=shipped.token)


# --- loyalty ----------------------------------------------------------------------------------------------------------


@loyalty.on(Charged, retry=FAR)
async def award(charged: Charged, ctx: Context) -> list[Awarded] | Refused | None:
    if not charged.stamps:
        return None
    if token := await _step(ctx, "award", charged.order):
        return [Awarded(order=charged.order, token=token, number=number) for number in range(charged.stamps)]
    return Refused(order=charged.order) if ctx.state.refuses("award", charged.order) else None


@loyalty.compensates(award, on=(OutOfStock, Rejected, Failed), retry=IN_PLACE)
async def revoke(awarded: list[Awarded], failure: OutOfStock | Rejected | Failed, ctx: Context) -> Revoked:
    await _undo(ctx, "award", "revoke", awarded[0].order, awarded[0].token)
    return Revoked(order=awarded[0].order, token=awarded[0].token)


@loyalty.on(Awarded, retry=IN_PLACE)
async def stamp(awarded: Awarded, ctx: Context) -> Stamped | None:
    token = await _step(ctx, "stamp", awarded.order)
    return Stamped(order=awarded.order, token=token) if token else None


@loyalty.compensates(stamp, on=(Failed,), retry=FAR)
async def unstamp(stamped: Stamped, failure: Failed, ctx: Context) -> None:
    await _undo(ctx, "stamp", "unstamp", stamped.order, stamped.token)


# --- orders -----------------------------------------------------------------------------------------------------------


def _stamps(placed: Placed) -> int:
    return placed.stamps


@orders.join(Placed, Shipped, Stamped, count=_stamps, unless=(Failed,), retry=IN_PLACE)
async def confirm(placed: Placed, shipped: Shipped, stamped: list[Stamped], ctx: Context) -> Completed | None:
    await _tell(ctx, "joined", "confirm", placed.order)
    return Completed(order=placed.order) if await _decide(ctx, placed.order, "completed") else None


@orders.join(Charged, Reserved, Shipped, need=2, unless=(Failed,), retry=A_WHILE)
async def report(charged: Charged | None, reserved: Reserved | None, shipped: Shipped | None, ctx: Context) -> None:
    event: Any = charged or reserved or shipped
    await _tell(ctx, "joined", "report", event.order)


@orders.on(Declined, OutOfStock, Rejected, Refused, retry=IN_PLACE)
async def give_up(failure: Declined | OutOfStock | Rejected | Refused, ctx: Context) -> Failed | None:
    await _tell(ctx, "heard", "give_up", failure.order)
    if await _decide(ctx, failure.order, "failed"):
        return Failed(order=failure.order, why=type(failure).__name__)
    return None


@orders.deadline(Placed, within=WITHIN, unless=(Completed, Failed), retry=FAR)
async def expire(placed: Placed, ctx: Context) -> Failed | None:
    await _tell(ctx, "expired", "expire", placed.order)
    return Failed(order=placed.order, why="expired") if await _decide(ctx, placed.order, "failed") else None
