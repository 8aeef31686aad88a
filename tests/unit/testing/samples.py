"""A small choreography that the tests of `choreo.testing` share: orders are paid, reserved and shipped."""

from __future__ import annotations

from typing import Any

from choreo import Context, Event, Failure, Retry, Service


class Placed(Event, topic="orders", key="id"):
    id: str
    n: int = 1


class Paid(Event, topic="payments", key="id"):
    id: str


class Declined(Failure, topic="payments", key="id", ends="failed"):
    id: str


class Reserved(Event, topic="stock", key="id"):
    id: str


class Shipped(Event, topic="shipments", key="id", ends="completed"):
    id: str


class GatewayError(Exception):
    """Worth another attempt."""


TABLES = "CREATE TABLE IF NOT EXISTS effects (id TEXT, what TEXT)"
"""No unique column: a doubled effect shows."""


class Shop:
    """Its services, made anew for each test."""

    def __init__(self, **options: Any) -> None:
        self.payments = Service("payments", store="sqlite:///must-not-be-touched.db", tables=TABLES)
        self.stock = Service("stock", tables=TABLES)
        self.shipping = Service("shipping", tables=TABLES)
        self.services = [self.payments, self.stock, self.shipping]

        @self.payments.on(
            Placed,
            **{
                "retry": Retry(attempts=3, transient=(GatewayError,), delay="10s", max_delay="10s", in_place="1h"),
                **options,
            },
        )
        async def charge(order: Placed, ctx: Context) -> Paid | Declined:
            await ctx.db.execute("INSERT INTO effects VALUES (?, 'charge')", (order.id,))
            return Paid(id=order.id) if order.n else Declined(id=order.id)

        @self.stock.on(Placed)
        async def reserve(order: Placed, ctx: Context) -> Reserved:
            await ctx.db.execute("INSERT INTO effects VALUES (?, 'reserve')", (order.id,))
            return Reserved(id=order.id)

        @self.shipping.on(Paid)
        async def ship(paid: Paid, ctx: Context) -> Shipped:
            await ctx.db.execute("INSERT INTO effects VALUES (?, 'ship')", (paid.id,))
            return Shipped(id=paid.id)

        self.charge, self.reserve, self.ship = charge, reserve, ship
