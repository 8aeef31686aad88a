"""Event classes and helpers that the wire's tests share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

from choreo.errors import SchemaNotFoundError
from choreo.events import Event, Metadata
from choreo.log.port import NewRecord, Record
from choreo.wire import Codec
from choreo.wire.avro import schema_id

E = TypeVar("E", bound=Event)


class Colour(Enum):
    RED = 1
    DEEP_BLUE = "deep blue"


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"

    @classmethod
    def _missing_(cls, value: object) -> Size:
        return cls.SMALL


class Line(BaseModel):
    """One line of an order."""

    sku: str
    quantity: int = Field(description="how many pieces")
    price: Decimal = Field(max_digits=12, decimal_places=2)
    colour: Colour = Colour.RED


class Card(BaseModel):
    number: str = ""


class Cash(BaseModel):
    number: str = ""


class Everything(Event, topic="everything", key="text"):
    text: str
    number: int
    ratio: float
    flag: bool
    octets: bytes
    amount: Decimal
    price: Decimal = Field(max_digits=12, decimal_places=2)
    at: dt.datetime
    day: dt.date
    clock: dt.time
    uid: UUID
    span: dt.timedelta
    colour: Colour
    size: Size
    kind: Literal["web", "shop"]
    line: Line
    lines: list[Line]
    words: tuple[str, ...]
    marks: set[str]
    numbers: dict[str, int]
    carts: dict[str, list[Line]]
    payment: Card | Cash
    payments: list[Card | Cash | None]
    mixed: int | str | bool | list[str] | None
    maybe_text: str | None
    maybe_amount: Decimal | None
    maybe_at: dt.datetime | None
    maybe_words: tuple[str, ...] | None
    maybe_line: Line | None
    maybe_colour: Colour | None
    maybe_map: dict[str, str] | None


class Order(Event, topic="orders", key="order_id"):
    order_id: str
    total: Decimal = Field(max_digits=12, decimal_places=2)
    lines: list[Line]


LINE = Line(sku="A-1", quantity=2, price=Decimal("9.99"))
ORDER = Order(order_id="o1", total=Decimal("19.98"), lines=[LINE])
META = Metadata("e1", "Order", "shop", "2026-02-03T04:05:06Z", "c1")


class MemoryRegistry:
    """A registry in memory that counts how often it is asked."""

    def __init__(self, schemas: Iterable[Any] = ()) -> None:
        self.schemas: dict[int | str, Any] = {schema_id(schema): schema for schema in schemas}
        self.asked = 0

    def address(self, schema_id: int) -> str:
        return f"urn:test:{schema_id}"

    async def register(self, subject: str, schema: Any) -> int:
        self.asked += 1
        self.schemas[schema_id(schema)] = schema
        return schema_id(schema)

    async def schema(self, schema_id: int | str) -> Any:
        self.asked += 1
        if schema_id not in self.schemas:
            raise SchemaNotFoundError(f"schema {schema_id}")
        return self.schemas[schema_id]

    async def versions(self, subject: str) -> list[Any]:
        return list(self.schemas.values())

    async def aclose(self) -> None:
        pass


def stored(new: NewRecord, offset: int = 7) -> Record:
    """The record as a log gives it back."""
    return Record(new.topic, 3, offset, new.timestamp or 1_770_000_000_000, new.key, new.value, new.headers)


async def codec_for(*classes: type[Event], registry: MemoryRegistry | None = None) -> Codec:
    codec = Codec(registry or MemoryRegistry())
    await codec.prepare(writes=classes, reads=classes)
    return codec


async def rewritten(event: Event, reader: type[E]) -> E:
    """An event written by its own class and read as another one."""
    registry = MemoryRegistry()
    writer = await codec_for(type(event), registry=registry)
    record = stored(writer.encode(event, META))
    codec = Codec(registry)
    await codec.load(int.from_bytes((record.value or b"")[1:5], "big"))
    return codec.decode(record, reader)
