from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import StrEnum
from io import BytesIO
from typing import Annotated, Any

import fastavro
import pytest
from pydantic import AliasChoices, BaseModel, Field

from choreo.errors import DecodeError, SchemaNotCachedError, SchemaNotFoundError
from choreo.events import Event
from choreo.log.port import Record
from choreo.wire import Codec
from choreo.wire.avro import schema_id
from tests.unit.wire.samples import (
    META,
    ORDER,
    Card,
    Cash,
    Colour,
    Line,
    MemoryRegistry,
    Order,
    codec_for,
    rewritten,
    stored,
)


class Old(Event, topic="t", key="id", name="Paid"):
    id: str
    amount: int
    gone: list[Line] = Field(default_factory=list)
    note: str | None = "old"


OLD = Old(id="1", amount=5)


async def test_new_fields_take_their_defaults_as_python_values():
    class New(Event, topic="t", key="id", name="Paid"):
        id: str
        amount: float
        total: Decimal = Decimal("1.5")
        at: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        day: dt.date = dt.date(2026, 1, 1)
        clock: dt.time = dt.time(1, 2)
        span: dt.timedelta = dt.timedelta(seconds=3)
        octets: bytes = b"\xff"
        colour: Colour = Colour.DEEP_BLUE
        colours: tuple[Colour, ...] = (Colour.RED,)
        payment: Card | Cash = Field(default_factory=Cash)
        card: Card = Field(default_factory=Card)
        words: dict[str, Colour] = Field(default_factory=dict)

    new = await rewritten(OLD, New)
    assert new == New(id="1", amount=5.0)
    assert type(new.amount) is float
    assert type(new.payment) is Cash


async def test_a_renamed_field_is_found_by_its_alias():
    class New(Event, topic="t", key="id", name="Paid"):
        id: str
        total: Annotated[int, Field(validation_alias=AliasChoices("total", "amount"))]

    assert (await rewritten(OLD, New)).total == 5


async def test_an_unknown_symbol_becomes_the_enum_s_declared_default():
    class Wide(StrEnum):
        A = "a"
        B = "b"

    class Narrow(StrEnum):
        A = "a"

        @classmethod
        def _missing_(cls, value: object) -> Narrow:
            return cls.A

    narrow, wide = type("Kind", (Narrow,), {}) if False else Narrow, Wide
    wide.__name__ = narrow.__name__ = "Kind"

    class Writes(Event, topic="t", key="id", name="Chosen"):
        id: str
        kind: Wide

    class Reads(Event, topic="t", key="id", name="Chosen"):
        id: str
        kind: Narrow

    assert (await rewritten(Writes(id="1", kind=Wide.B), Reads)).kind is Narrow.A


async def test_a_new_required_field_makes_old_records_undecodable():
    class New(Event, topic="t", key="id", name="Paid"):
        id: str
        needed: str

    with pytest.raises(DecodeError, match=r"record t/3/7 cannot be read: .*No default value for field needed"):
        await rewritten(OLD, New)


async def test_a_changed_type_makes_old_records_undecodable():
    class New(Event, topic="t", key="id", name="Paid"):
        id: str
        amount: bool

    with pytest.raises(DecodeError, match="does not suit schema Paid"):
        await rewritten(OLD, New)


async def test_a_value_that_the_class_refuses_is_named_by_its_field():
    class New(Event, topic="t", key="id", name="Paid"):
        id: str
        amount: int = Field(gt=10)

    with pytest.raises(DecodeError, match=r"record t/3/7 is no Paid: field amount: Input should be greater than 10"):
        await rewritten(OLD, New)


async def test_another_event_s_record_is_undecodable():
    with pytest.raises(DecodeError, match=r"record orders/3/7 is no Paid: schema \d+ is of Order"):
        await rewritten(ORDER, Old)


async def test_a_writer_s_schema_is_loaded_once_and_then_kept():
    registry = MemoryRegistry()
    record = stored((await codec_for(Order, registry=registry)).encode(ORDER, META))
    codec = Codec(registry)
    with pytest.raises(SchemaNotCachedError) as missing:
        codec.decode(record, Order)
    await codec.load(missing.value.schema_id)
    asked = registry.asked
    await codec.load(missing.value.schema_id)
    assert registry.asked == asked
    assert codec.decode(record, Order) == ORDER


async def test_an_unknown_id_is_permanent():
    with pytest.raises(SchemaNotFoundError):
        await Codec(MemoryRegistry()).load(99)


@pytest.mark.parametrize(
    "schema",
    [{"type": "record"}, {"type": "record", "name": "R", "fields": [{"name": "f", "type": "x"}]}, 5, "nonsense"],
)
async def test_a_registered_schema_that_is_none_is_permanent(schema):
    registry = MemoryRegistry()
    registry.schemas[1] = schema
    with pytest.raises(DecodeError, match="schema 1 is no Avro schema that can be read"):
        await Codec(registry).load(1)


async def written_by(schema: dict[str, Any], datum: Any) -> tuple[Codec, Record]:
    """A foreign producer's record, and a codec that knows its schema."""
    codec = Codec(MemoryRegistry([schema]))
    await codec.load(schema_id(schema))
    stream = BytesIO(b"\x00" + schema_id(schema).to_bytes(4, "big"))
    stream.seek(5)
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), datum)
    return codec, Record("t", 0, 1, 5, None, stream.getvalue(), [])


async def test_a_foreign_schema_resolves_by_short_name_and_by_millis():
    class Seen(Event, topic="t", key="id"):
        id: str
        at: dt.datetime

    millis = {"type": "long", "logicalType": "timestamp-millis"}
    schema = {
        "type": "record",
        "namespace": "com.other",
        "name": "Seen",
        "fields": [{"name": "at", "type": millis}, {"name": "extra", "type": "int"}, {"name": "id", "type": "string"}],
    }
    codec, record = await written_by(schema, {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "extra": 1, "id": "x"})
    assert codec.decode(record, Seen) == Seen(id="x", at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    assert codec.type_of(record, codec.metadata(record)) == "com.other.Seen"
    assert codec.decode_any(record)[0] == "com.other.Seen"


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
TREE = {"type": "record", "name": "Seen", "fields": [{"name": "id", "type": "string"}, {"name": "node", "type": NODE}]}


async def test_a_schema_that_contains_itself_is_permanent():
    registry = MemoryRegistry()
    registry.schemas[1] = TREE
    with pytest.raises(DecodeError, match=r"schema \d+ is no Avro schema that can be read: Node contains itself"):
        await Codec(registry).load(1)


async def test_a_validator_that_fails_in_its_own_way_makes_a_decode_error():
    class Strange(Event, topic="t", key="id", name="Paid"):
        id: str

        def model_post_init(self, context: object, /) -> None:
            raise KeyError("strange")

    with pytest.raises(DecodeError, match="record t/3/7 is no Paid: KeyError"):
        await rewritten(OLD, Strange)


async def test_nested_models_evolve_too():
    class LineV2(BaseModel):
        sku: str
        quantity: float
        note: str = "none"

    LineV2.__name__ = "Line"

    class New(Event, topic="t", key="order_id", name="Order"):
        order_id: str
        lines: list[LineV2]

    assert (await rewritten(ORDER, New)).lines == [LineV2(sku="A-1", quantity=2.0)]
