from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from enum import Enum, Flag
from typing import Annotated, Any, Literal, NewType
from uuid import UUID, uuid4

import fastavro
import pytest
from pydantic import AliasChoices, AwareDatetime, BaseModel, Field, PositiveInt

from choreo.errors import DeclarationError
from choreo.events import Event
from choreo.wire.avro import identity, normal, schema_id, text
from choreo.wire.schema import schema_of
from tests.unit.wire.samples import Card, Cash, Colour, Everything, Line, Order, Size

Sku = NewType("Sku", str)


def field_of(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The Avro field that an annotation (and default) becomes."""
    namespace = {"__annotations__": {"id": str, "field": annotation}, "__module__": __name__}
    if default is not ...:
        namespace["field"] = default
    event = type(Event)("Sample", (Event,), namespace, topic="samples", key="id")
    return schema_of(event)["fields"][1]


@pytest.mark.parametrize(
    ("annotation", "avro"),
    [
        (str, "string"),
        (int, "long"),
        (PositiveInt, "long"),
        (Sku, "string"),
        (float, "double"),
        (bool, "boolean"),
        (bytes, "bytes"),
        (dt.datetime, {"type": "long", "logicalType": "timestamp-micros"}),
        (AwareDatetime, {"type": "long", "logicalType": "timestamp-micros"}),
        (dt.date, {"type": "int", "logicalType": "date"}),
        (dt.time, {"type": "long", "logicalType": "time-micros"}),
        (dt.timedelta, {"type": "long", "logicalType": "choreo.duration-micros"}),
        (UUID, {"type": "string", "logicalType": "uuid"}),
        (Decimal, {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}),
        (
            Annotated[Decimal, Field(max_digits=10, decimal_places=2)],
            {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        ),
        (
            Annotated[Decimal, Field(max_digits=10)],
            {"type": "bytes", "logicalType": "decimal", "precision": 19, "scale": 9},
        ),
        (Colour, {"type": "enum", "name": "Colour", "symbols": ["RED", "DEEP_BLUE"]}),
        (Size, {"type": "enum", "name": "Size", "symbols": ["small", "large"], "default": "small"}),
        (Literal["web", "shop"], {"type": "enum", "name": "SampleField", "symbols": ["web", "shop"]}),
        (list[int], {"type": "array", "items": "long"}),
        (tuple[str, ...], {"type": "array", "items": "string"}),
        (frozenset[str], {"type": "array", "items": "string"}),
        (dict[str, float], {"type": "map", "values": "double"}),
        (str | None, ["null", "string"]),
        (int | str, ["long", "string"]),
        (float | int | dt.date, [{"type": "int", "logicalType": "date"}, "long", "double"]),
        (list[str | None], {"type": "array", "items": ["null", "string"]}),
        (
            list[Annotated[Decimal, Field(max_digits=4, decimal_places=1)]],
            {"type": "array", "items": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}},
        ),
    ],
)
def test_each_type_has_its_avro_schema(annotation, avro):
    assert field_of(annotation) == {"name": "field", "type": avro}


@pytest.mark.parametrize(
    ("annotation", "default", "avro", "json_default"),
    [
        (str, "x", "string", "x"),
        (str | None, None, ["null", "string"], None),
        (str | None, "x", ["string", "null"], "x"),
        (int | str | None, "x", ["string", "null", "long"], "x"),
        (bytes, b"\xff\x00", "bytes", "\u00ff\u0000"),
        (dt.date, dt.date(1970, 1, 11), {"type": "int", "logicalType": "date"}, 10),
        (
            dt.datetime,
            dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC),
            {"type": "long", "logicalType": "timestamp-micros"},
            1_000_000,
        ),
        (
            Annotated[Decimal, Field(max_digits=4, decimal_places=2)],
            Decimal("-0.01"),
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            "\u00ff",
        ),
        (Colour, Colour.DEEP_BLUE, {"type": "enum", "name": "Colour", "symbols": ["RED", "DEEP_BLUE"]}, "DEEP_BLUE"),
        (list[str], Field(default_factory=list), {"type": "array", "items": "string"}, []),
        (tuple[int, ...], (1, 2), {"type": "array", "items": "long"}, [1, 2]),
    ],
)
def test_defaults_are_written_as_avro_writes_them(annotation, default, avro, json_default):
    field = field_of(annotation, default)
    assert field == {"name": "field", "type": avro, "default": json_default}
    schema = {"type": "record", "name": "R", "fields": [field]}
    assert fastavro.parse_schema(schema)["name"] == "R"


def test_a_default_that_differs_each_time_is_none_in_avro():
    assert "default" not in field_of(UUID, Field(default_factory=uuid4))


def test_docstrings_and_descriptions_become_doc():
    schema = schema_of(Order)
    line = schema["fields"][2]["type"]["items"]
    assert line["doc"] == "One line of an order."
    assert line["fields"][1]["doc"] == "how many pieces"
    assert "doc" not in schema


def test_a_named_type_is_defined_once_then_named():
    written = json.dumps(schema_of(Everything))
    assert written.count('"name": "Line"') == 1
    assert written.count('"name": "Colour"') == 1
    fastavro.parse_schema(schema_of(Everything))


def test_names_take_the_namespace_of_the_type_name():
    class Placed(Event, topic="orders", key="id", name="com.acme.Placed"):
        id: str
        line: Line
        how: Literal["a", "b"]

    schema = schema_of(Placed)
    assert schema["name"] == "com.acme.Placed"
    assert schema["fields"][1]["type"]["name"] == "com.acme.Line"
    assert schema["fields"][2]["type"]["name"] == "com.acme.PlacedHow"


def test_alias_choices_become_avro_aliases():
    field = field_of(Annotated[str, Field(validation_alias=AliasChoices("field", "old_name"))])
    assert field["aliases"] == ["old_name"]


def test_the_text_is_stable_json_with_a_newline():
    written = text(schema_of(Order))
    assert written.startswith('{\n  "type": "record",\n  "name": "Order"')
    assert written.endswith("}\n")
    assert json.loads(written) == schema_of(Order)


class Rgb(Flag):
    R = 1


class Node(BaseModel):
    children: list[Node]


class Hidden(BaseModel):
    secret: str = Field(exclude=True)


class OtherScope:
    class Line(BaseModel):
        text: str


class TwoLines(BaseModel):
    one: Line
    two: OtherScope.Line


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Any, r"event Sample: field field has the type Any, which no Avro type holds \(docs/schemas.md"),
        (complex, "has the type complex"),
        (tuple[int, str], "field field has the type tuple"),
        (dict[int, str], "has the type dict"),
        (list[complex], r"field field\[\] has the type complex"),
        (Rgb, "has the type Rgb"),
        (Literal["a-b"], "is a Literal that is no list of Avro names .use an Enum"),
        (Literal[1], "is a Literal"),
        (Node, r"field field.children\[\] has Node inside Node"),
        (Hidden, "field field.secret is declared exclude=True"),
        (TwoLines, "field field.two has a second type named Line .rename"),
        (str | UUID, "is a union of types that look alike"),
        (str | Size, "is a union of types that look alike"),
        (bytes | Decimal, "is a union of types that look alike"),
        (str | bytes, "is a union of types that look alike"),
        (Card | dict[str, str], "is a union of types that look alike"),
        (list[int] | list[str], "is a union of types that look alike"),
        (Annotated[str, Field(validation_alias="other")], r"accepts only its alias.*AliasChoices\('field'"),
    ],
)
def test_what_avro_cannot_hold_is_refused_with_a_remedy(annotation, message):
    with pytest.raises(DeclarationError, match=message):
        field_of(annotation)


@pytest.mark.parametrize(
    ("annotation", "default", "message"),
    [
        (int, "5", "has a default it does not allow .Input should be a valid integer"),
        (Decimal, Decimal("0.12345678901"), "has a default it does not allow .*more digits than"),
        (dt.datetime, dt.datetime(2020, 1, 1), "has a default it does not allow .Input should have timezone info"),  # noqa: DTZ001 - the very mistake
    ],
)
def test_a_default_that_does_not_fit_is_refused(annotation, default, message):
    with pytest.raises(DeclarationError, match=message):
        field_of(annotation, default)


def test_unions_of_several_models_are_allowed():
    assert [branch["name"] for branch in field_of(Card | Cash)["type"]] == ["Card", "Cash"]


def test_identity_ignores_spelling_and_documentation_but_nothing_else():
    one = {"type": "record", "name": "a.R", "doc": "x", "fields": [{"name": "f", "type": {"type": "string"}}]}
    two = {"name": "R", "namespace": "a", "fields": [{"type": "string", "name": "f", "doc": "y"}], "type": "record"}
    assert identity(one) == identity(two)
    assert schema_id(one) == schema_id(two)
    date = {
        "type": "record",
        "name": "a.R",
        "fields": [{"name": "f", "type": {"type": "string", "logicalType": "uuid"}}],
    }
    default = {"type": "record", "name": "a.R", "fields": [{"name": "f", "type": "string", "default": ""}]}
    assert len({identity(one), identity(date), identity(default)}) == 3


def test_ids_are_the_same_on_every_machine():
    assert schema_id({"type": "record", "name": "R", "fields": []}) == 1_737_543_960
    assert 0 < schema_id(schema_of(Order)) < 2**31


def test_references_in_a_namespace_are_written_out():
    schema = {
        "type": "record",
        "name": "R",
        "namespace": "a.b",
        "fields": [
            {"name": "f", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
            {"name": "g", "type": ["null", "E"]},
        ],
    }
    assert normal(schema)["fields"][1]["type"] == ["null", {"type": "enum", "name": "a.b.E", "symbols": ["X"]}]


def test_a_schema_that_contains_itself_is_refused():
    node = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
    for schema in (node, {"type": "array", "items": node}):
        with pytest.raises(ValueError, match="N contains itself"):
            normal(schema)


def test_an_enum_symbol_of_a_plain_enum_is_its_value_where_all_values_are_names():
    class Level(Enum):
        LOW = "low"
        HIGH = "high"

    assert field_of(Level)["type"]["symbols"] == ["low", "high"]
