from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.wire.compat import Mode, check, unreadable


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(avro: Any, name: str = "f", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": avro, **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def mapping(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


UUID = {"type": "string", "logicalType": "uuid"}
DATE = {"type": "int", "logicalType": "date"}
PROMOTIONS = [
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
    ("string", "bytes"),
    ("bytes", "string"),
]
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]


@pytest.mark.parametrize("reader", PRIMITIVES)
@pytest.mark.parametrize("writer", PRIMITIVES)
def test_primitives_promote_as_the_specification_says(writer, reader):
    readable = writer == reader or (writer, reader) in PROMOTIONS
    faults = unreadable(record(field(reader)), record(field(writer)))
    assert [fault.rule for fault in faults] == ([] if readable else ["type-mismatch"])


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (record(field("int"), field("string", "g", default="")), record(field("int"))),
        (record(field("int")), record(field("int"), field("string", "g"))),
        (record(field("int", "new", aliases=["f"])), record(field("int"))),
        (record(field("int"), name="a.R"), record(field("int"), name="b.R")),
        (record(field("int"), name="New", aliases=["R"]), record(field("int"))),
        (record(field(["null", "int"])), record(field("int"))),
        (record(field("int")), record(field(["int"]))),
        (record(field(["null", "string", "long"])), record(field(["null", "int"]))),
        (record(field(enum("A", "B"))), record(field(enum("A")))),
        (record(field(enum("A", default="A"))), record(field(enum("A", "B")))),
        (record(field(fixed(4))), record(field(fixed(4)))),
        (record(field(array("long"))), record(field(array("int")))),
        (record(field(mapping("double"))), record(field(mapping("float")))),
        (record(field(decimal(12, 2))), record(field(decimal(10, 2)))),
        (record(field(enum("A")), field("E", "g")), record(field(enum("A"), "g"), field("E"))),
        ({"type": "string"}, "string"),
    ],
)
def test_compatible_changes(reader, writer):
    assert unreadable(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "path", "rule"),
    [
        (record(field("int"), field("int", "g")), record(field("int")), "g", "missing-default"),
        (record(field("int"), name="S"), record(field("int")), "", "name-mismatch"),
        (record(field("int", "n", aliases=["f"])), record(field("int"), field("int", "n")), "n", "ambiguous-alias"),
        (record(field("int")), record(field(["null", "int"])), "f<null>", "type-mismatch"),
        (record(field(["null", "string"])), record(field("int")), "f", "missing-union-branch"),
        (record(field(["null", "string"])), record(field(["null", "int"])), "f<int>", "missing-union-branch"),
        (record(field(enum("A"))), record(field(enum("A", "B"))), "f", "missing-symbols"),
        (record(field(enum("A", name="X"))), record(field(enum("A"))), "f", "name-mismatch"),
        (record(field(enum("A"))), record(field("string")), "f", "type-mismatch"),
        (record(field(fixed(8))), record(field(fixed(4))), "f", "fixed-size"),
        (record(field(fixed(4, "G"))), record(field(fixed(4))), "f", "name-mismatch"),
        (record(field(array("int"))), record(field(array("long"))), "f[]", "type-mismatch"),
        (record(field(mapping("int"))), record(field(mapping("string"))), "f{}", "type-mismatch"),
        (record(field(array("int"))), record(field(mapping("int"))), "f", "type-mismatch"),
        (record(field(decimal(10, 3))), record(field(decimal(10, 2))), "f", "decimal"),
        (record(field(decimal(9, 2))), record(field(decimal(10, 2))), "f", "decimal"),
        (record(field("bytes")), record(field(decimal(10, 2))), "f", "logical-type"),
        (record(field("string")), record(field(UUID)), "f", "logical-type"),
        (record(field(UUID)), record(field("string")), "f", "logical-type"),
        (record(field("long")), record(field(DATE)), "f", "logical-type"),
        (
            record(field(array(record(field("int", "x"), name="I")))),
            record(field(array(record(name="I")))),
            "f[].x",
            "missing-default",
        ),
    ],
)
def test_incompatible_changes_name_the_path_and_the_rule(reader, writer, path, rule):
    faults = unreadable(reader, writer)
    assert [(fault.path, fault.rule) for fault in faults] == [(path, rule)]
    assert faults[0].reason


OLD, NEW = record(field("int")), record(field("int"), field("int", "g"))


@pytest.mark.parametrize(
    ("mode", "new", "olds", "found"),
    [
        (Mode.NONE, NEW, [OLD], []),
        (Mode.BACKWARD, NEW, [OLD], [(1, "backward")]),
        (Mode.BACKWARD, NEW, [OLD, NEW], []),
        (Mode.BACKWARD_TRANSITIVE, NEW, [OLD, NEW], [(1, "backward")]),
        (Mode.FORWARD, NEW, [OLD], []),
        (Mode.FORWARD, OLD, [NEW], [(1, "forward")]),
        (Mode.FORWARD, OLD, [NEW, OLD], []),
        (Mode.FORWARD_TRANSITIVE, OLD, [NEW, OLD], [(1, "forward")]),
        (Mode.FULL, OLD, [NEW], [(1, "forward")]),
        (Mode.FULL, NEW, [NEW, OLD], [(2, "backward")]),
        (Mode.FULL_TRANSITIVE, NEW, [OLD, NEW, OLD], [(1, "backward"), (3, "backward")]),
        (Mode.FULL_TRANSITIVE, NEW, [], []),
    ],
)
def test_modes_say_who_reads_whose_data(mode, new, olds, found):
    assert [(fault.version, fault.direction) for fault in check(new, olds, mode)] == found


def test_the_default_is_backward_over_all_versions():
    assert check(NEW, [OLD, NEW]) == check(NEW, [OLD, NEW], Mode.BACKWARD_TRANSITIVE) != []


# --- property: what the rules call compatible, fastavro reads --------------------------------------------------------

LEAVES = st.sampled_from([*PRIMITIVES[1:], DATE, UUID, decimal(9, 2), decimal(12, 2)])


def with_name(kind: str, number: int, inner: Any) -> dict[str, Any]:
    return record(*inner, name=f"R{number}") if kind == "record" else enum(*inner, name=f"E{number}")


NAMED = st.builds(with_name, st.just("enum"), st.integers(0, 2), st.sampled_from([("A",), ("A", "B"), ("B", "C")])) | (
    st.builds(fixed, st.integers(1, 3))
)


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.lists(st.tuples(st.sampled_from("abcd"), inner), max_size=3, unique_by=lambda pair: pair[0])
    return (
        st.builds(array, inner)
        | st.builds(mapping, inner)
        | st.builds(lambda one: ["null", one] if not isinstance(one, list) and one != "null" else one, inner)
        | st.builds(
            lambda number, all_of: with_name("record", number, [field(t, n) for n, t in all_of]),
            st.integers(0, 2),
            fields,
        )
    )


TYPES = st.recursive(LEAVES | NAMED, schemas, max_leaves=6)


def usable(schema: Any) -> bool:
    """Whether fastavro takes the schema: no name is defined twice."""
    try:
        fastavro.parse_schema(json.loads(json.dumps(schema)))
    except fastavro.schema.SchemaParseException:
        return False
    return True


def changed(data: st.DataObject, schema: Any, *, nullable: bool = True) -> Any:
    """The schema after a few of the changes that people make."""
    if isinstance(schema, list):
        return [changed(data, branch, nullable=False) for branch in schema]
    if isinstance(schema, str):
        wider = [to for one, to in PROMOTIONS if one == schema]
        return data.draw(st.sampled_from([schema, schema, *wider, *([["null", schema]] if nullable else [])]))
    kind = schema["type"]
    if kind == "record":
        fields = [{**one, "type": changed(data, one["type"])} for one in schema["fields"]]
        fields = [one for one in fields if data.draw(st.integers(0, 9)) > 0]
        if data.draw(st.booleans()):
            fields.append(field(["null", "string"], "added", default=None))
        if fields and data.draw(st.integers(0, 4)) == 0:
            fields[0] = {**fields[0], "name": "renamed", "aliases": [fields[0]["name"]]}
        return {**schema, "fields": fields}
    if kind in {"array", "map"}:
        inner = "items" if kind == "array" else "values"
        return {**schema, inner: changed(data, schema[inner])}
    if kind == "enum":
        return {**schema, "symbols": data.draw(st.sampled_from([schema["symbols"], [*schema["symbols"], "Z"]]))}
    return schema


def values(schema: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one return per kind of schema
    """Data of a schema, as fastavro writes it without logical types."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        return st.fixed_dictionaries({one["name"]: values(one["type"]) for one in schema["fields"]})
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=2)
    if kind == "map":
        return st.dictionaries(st.text(max_size=2), values(schema["values"]), max_size=2)
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    return VALUES[schema["logicalType"] if isinstance(schema, dict) else kind]


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(),
    "bytes": st.text().map(str.encode),  # as a string is one of its readers
    "date": st.dates(),
    "uuid": st.uuids(),
    "decimal": st.decimals(-9999999, 9999999, places=2),
}


@given(st.data())
@settings(max_examples=400)
def test_what_is_called_compatible_can_be_read(data):
    inner = data.draw(TYPES)
    writer = record(field(inner), name="Top")
    reader = record(field(changed(data, inner) if data.draw(st.integers(0, 3)) else data.draw(TYPES)), name="Top")
    if not usable(writer) or not usable(reader) or unreadable(reader, writer):
        return
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), data.draw(values(writer)))
    stream.seek(0)
    result = fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    assert result.keys() == {"f"}
    assert stream.read() == b""


@given(TYPES)
@settings(max_examples=200)
def test_every_schema_reads_its_own_data(inner):
    schema = record(field(inner), name="Top")
    if usable(schema):
        assert unreadable(schema, schema) == []
