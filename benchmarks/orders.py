"""The job's two events as choreo declares them. Their topics are those of the bench that started this program."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from decimal import Decimal

from job import Line

from choreo import Event

_bench = json.loads(os.environ["CHOREO_BENCH"])


class OrderPlaced(Event, topic=_bench["orders"], key="order_id"):
    order_id: str
    customer: str
    address: str
    placed_at: datetime
    total: Decimal
    lines: list[Line]


class PaymentCharged(Event, topic=_bench["payments"], key="order_id"):
    order_id: str
    total: Decimal
    receipt: str


def order(number: int) -> OrderPlaced:
    lines = [
        Line(sku=f"sku-{number % 97:04}-{'SML'[i]}", quantity=i + 1, price=Decimal(f"{number % 90 + 9}.99"))
        for i in range(3)
    ]
    return OrderPlaced(
        order_id=f"order-{number:08}",
        customer=f"Ada Lovelace the {number % 1000}th, Countess",
        address=f"{number % 300} St James's Square, London SW1Y 4LE, United Kingdom",
        placed_at=datetime.now(UTC),
        total=Decimal("119.94"),
        lines=lines,
    )
