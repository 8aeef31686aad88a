"""The job that every contestant does, and how it tells the bench about it. Knows no framework, choreo neither.

One order event (about 200 bytes of Avro in Confluent framing, headers of CloudEvents) is read, validated and charged;
the charge is written the same way. A contestant is a program of its own, started with its part of the bench in the
environment; it says when it handles its first order, and works until it is stopped.
"""

from __future__ import annotations

import gc
import io
import json
import os
import struct
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from pydantic import BaseModel

FIRST = "first order"
_FRAMING = struct.Struct(">bI")


class Line(BaseModel):
    sku: str
    quantity: int
    price: Decimal


class Order(BaseModel):
    order_id: str
    customer: str
    address: str
    placed_at: datetime
    total: Decimal
    lines: list[Line]


class Payment(BaseModel):
    order_id: str
    total: Decimal
    receipt: str


def charged(order: Any) -> dict[str, Any]:
    """The fields of the payment for an order."""
    return {"order_id": order.order_id, "total": order.total, "receipt": f"receipt-{order.order_id}"}


class Bench(NamedTuple):
    """What a contestant is told."""

    bootstrap: str
    orders: str
    payments: str
    group: str
    schemas: str
    payment_schema_id: int
    store: str
    log: str

    @classmethod
    def here(cls) -> Bench:
        return cls(**json.loads(os.environ["CHOREO_BENCH"]))


class Job:
    """The work on one record, as one writes it by hand."""

    def __init__(self, bench: Bench) -> None:
        folder = Path(bench.schemas)
        self._reads, self._writes = (
            fastavro.parse_schema(json.loads((folder / path).read_text()))
            for path in (f"{bench.orders}/OrderPlaced.avsc", f"{bench.payments}/PaymentCharged.avsc")
        )
        self._framing = _FRAMING.pack(0, bench.payment_schema_id)
        self._started = False

    def order(self, value: bytes) -> Order:
        if not self._started:
            self._started = True
            say_first()
        return Order.model_validate(fastavro.schemaless_reader(io.BytesIO(value[_FRAMING.size :]), self._reads, None))

    def value(self, payment: Payment) -> bytes:
        out = io.BytesIO()
        out.write(self._framing)
        fastavro.schemaless_writer(out, self._writes, payment.__dict__)
        return out.getvalue()

    def handle(self, value: bytes) -> tuple[bytes, bytes]:
        """Key and value of the payment for an order."""
        payment = Payment(**charged(self.order(value)))
        return payment.order_id.encode(), self.value(payment)


def headers(cause: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid.uuid4()).encode()),
        ("ce_type", b"PaymentCharged"),
        ("ce_source", b"bench"),
        ("ce_time", datetime.now(UTC).isoformat().encode()),
        ("ce_correlationid", cause.get("ce_correlationid", b"")),
        ("ce_causationid", cause.get("ce_id", b"")),
    ]


def say_first() -> None:
    """Tell the bench that the first order is being handled: the clock, and the CPU seconds used until now."""
    print(json.dumps({FIRST: time.monotonic(), "cpu": time.process_time()}), flush=True)


def settle_garbage_collector() -> None:
    """What `choreo run` does for its services, here for the others too."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
