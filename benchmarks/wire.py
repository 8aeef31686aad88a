"""What the wire costs: the codec against bare fastavro and pydantic, and the envelope and ids by themselves.

    python benchmarks/wire.py [--json]

The base line does the least that any program with these two libraries must do: write the datum, read it back, validate.
Both sides run in turns in the same process; each time is the best of several rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from pydantic import BaseModel, Field

from choreo.events import Event, Metadata
from choreo.log.port import Record
from choreo.wire import Codec, derive_event_id, envelope, inbox_key, new_event_id, open_registry
from choreo.wire.schema import schema_of

CALLS, ROUNDS = 5000, 15


class Line(BaseModel):
    """One of an order's three lines."""

    sku: str
    quantity: int
    price: Decimal = Field(max_digits=12, decimal_places=2)


class Order(Event, topic="orders", key="order_id"):
    """The event that is measured: about 200 bytes."""

    order_id: str
    customer: str
    total: Decimal = Field(max_digits=12, decimal_places=2)
    placed_at: datetime
    lines: list[Line]


ORDER = Order(
    order_id="order-000000000042",
    customer="Ada Lovelace, 12 St James's Square, London",
    total=Decimal("1234.50"),
    placed_at=datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    lines=[
        Line(sku=f"SKU-{number:020d}-large", quantity=number, price=Decimal(f"{number}11.50")) for number in range(1, 4)
    ],
)
META = Metadata(
    new_event_id(),
    "Order",
    "shop",
    "2026-02-03T04:05:06.789000Z",
    new_event_id(),
    new_event_id(),
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


async def prepared(folder: Path) -> tuple[Codec, Record]:
    codec = Codec(open_registry(str(folder)))
    await codec.prepare(writes=[Order], reads=[Order])
    new = codec.encode(ORDER, META)
    record = Record(new.topic, 0, 0, 0, new.key, new.value, new.headers)
    if codec.decode(record, Order) != ORDER:
        raise SystemExit("the order did not survive the round trip")
    return codec, record


def bare() -> tuple[Callable[[], Any], Callable[[], Any]]:
    schema = fastavro.parse_schema(schema_of(Order))

    def write() -> bytes:
        stream = BytesIO()
        datum = {**ORDER.__dict__, "lines": [line.__dict__ for line in ORDER.lines]}
        fastavro.schemaless_writer(stream, schema, datum)
        return stream.getvalue()

    data = write()
    return write, lambda: Order.model_validate(fastavro.schemaless_reader(BytesIO(data), schema))


def best(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Microseconds per call: the least of all rounds, the calls taking turns."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            found[name] = min(found[name], (time.perf_counter() - start) / CALLS * 1e6)
    return found


def measure(codec: Codec, record: Record) -> dict[str, float]:
    write, read = bare()
    key, cause, common = record.key or b"", META.event_id, envelope.constant("Order", "urn:choreo:schema:1")
    found = best(
        {
            "bare encode": write,
            "bare decode": read,
            "codec encode": lambda: codec.encode(ORDER, META),
            "codec decode": lambda: codec.decode(record, Order),
            "envelope write": lambda: envelope.write(META, common, key),
            "envelope read": lambda: envelope.read(record),
            "new event id": new_event_id,
            "derive event id": lambda: derive_event_id(cause, "shop", "place", 0, time_ms=0),
            "inbox key": lambda: inbox_key("shop", cause, "place"),
        }
    )
    codec_alone = found["codec encode"] - found["envelope write"] + found["codec decode"]
    return {**found, "ratio": codec_alone / (found["bare encode"] + found["bare decode"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        codec, record = asyncio.run(prepared(Path(folder)))
        found = measure(codec, record)
    if arguments.json:
        print(json.dumps({"value_bytes": len(record.value or b""), **found}))
        return
    print(f"order event, {len(record.value or b'')} bytes of value, {len(record.headers)} headers; µs per call")
    for name, micros in found.items():
        if name != "ratio":
            print(f"  {name:16} {micros:6.2f}")
    print(f"  encode + decode without the envelope, over bare fastavro + pydantic: {found['ratio']:.2f}x")


if __name__ == "__main__":
    main()
