"""Data of any schema as JSON, changed, and written again."""

from __future__ import annotations

import json
import math
from io import BytesIO

import fastavro
import pytest
from hypothesis import given, settings

from choreo.errors import EncodeError
from choreo.log.port import Record
from choreo.wire.plain import as_json, encoded
from tests.unit.wire.samples import LINE, META, ORDER, Cash, codec_for, stored
from tests.unit.wire.test_roundtrip import CODEC, EVENTS


def parsed(*fields):
    return fastavro.parse_schema({"type": "record", "name": "shop.Thing", "fields": list(fields)})


def written(schema, datum):
    stream = BytesIO()
    fastavro.schemaless_writer(stream, schema, datum)
    return stream.getvalue()


@settings(max_examples=50)
@given(EVENTS)
def test_the_data_of_any_event_is_written_as_it_was(event):
    record = stored(CODEC.encode(event, META))
    if any(isinstance(one, Cash) for one in (event.payment, *event.payments)):
        with pytest.raises(EncodeError, match="does not tell which of several types"):
            CODEC.encode_any(record, {})
    else:
        data = as_json(CODEC.decode_any(record)[1])
        assert CODEC.encode_any(record, json.loads(json.dumps(data))) == record


async def test_changed_data_is_what_is_read_afterwards():
    codec = await codec_for(type(ORDER))
    record = stored(codec.encode(ORDER, META))
    data = as_json(codec.decode_any(record)[1])
    data["total"] = "20.50"
    data["lines"].append({"sku": "B-2", "quantity": 1, "price": "0.52", "colour": "DEEP_BLUE"})
    changed = codec.decode(codec.encode_any(record, data), type(ORDER))
    assert (str(changed.total), len(changed.lines), changed.lines[0]) == ("20.50", 2, LINE)


TREE = {"name": "kids", "type": {"type": "array", "items": "shop.Thing"}}
FIXED = {"name": "f", "type": {"type": "fixed", "name": "Two", "size": 2}}
LOCAL = {"name": "t", "type": {"type": "long", "logicalType": "local-timestamp-millis"}}
FLOAT = {"name": "x", "type": "float"}
ODD = {"name": "o", "type": {"type": "string", "logicalType": "somebody-elses"}}


@pytest.mark.parametrize(
    ("field", "datum"),
    [
        (TREE, {"kids": [{"kids": []}, {"kids": [{"kids": []}]}]}),
        (FIXED, {"f": b"\xff\0"}),
        (FLOAT, {"x": math.inf}),
        (ODD, {"o": "text"}),
        ({"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}, {"e": "A"}),
        ({"name": "u", "type": ["null", "bytes"]}, {"u": b"\0\xfe"}),
    ],
    ids=["a type in itself", "fixed", "infinity", "unknown logical type", "enum", "union"],
)
def test_schemas_of_others_too(field, datum):
    schema = parsed(field)
    before = written(schema, datum)
    assert encoded(schema, as_json(fastavro.schemaless_reader(BytesIO(before), schema))) == before


PRICE = {"name": "p", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}}


@pytest.mark.parametrize(
    ("field", "data", "fault"),
    [
        (FIXED, {"f": "YWJj"}, "f: Data should have at most 2 bytes"),
        (PRICE, {"p": "1.234"}, "p: Decimal input should have no more than 2 decimal places"),
        (PRICE, {"p": "123.4"}, "p: Decimal input should have no more than 2 digits before the decimal point"),
        (LOCAL, {"t": "2026-01-01T00:00:00Z"}, "t: Input should not have timezone info"),
        ({"name": "n", "type": "int"}, {"n": 2**31}, "n: Input should be less than or equal to 2147483647"),
        ({"name": "n", "type": "long"}, {"n": "7"}, "n: Input should be a valid integer"),
        ({"name": "n", "type": "string"}, {"n": 7}, "n: Input should be a valid string"),
        ({"name": "n", "type": "string"}, {"n": "a", "m": 1}, "m: Extra inputs are not permitted"),
        ({"name": "n", "type": "string"}, {}, "n: Field required"),
        ({"name": "n", "type": "string"}, [], "all: Input should be an object"),
    ],
)
def test_what_the_schema_does_not_allow_is_named(field, data, fault):
    with pytest.raises(EncodeError) as raised:
        encoded(parsed(field), data)
    assert fault in str(raised.value)


def test_a_default_need_not_be_given():
    schema = parsed({"name": "n", "type": "string", "default": "x"})
    assert encoded(schema, {}) == written(schema, {"n": "x"})


def test_data_that_came_as_json_goes_as_json():
    record = Record("t", 0, 1, 1, None, b'{ "a": 1}', [("content-type", b"application/json")])
    assert CODEC.encode_any(record, {"a": 2}) == record._replace(value=b'{"a": 2}')


def test_a_document_of_structured_mode_goes_in_binary_mode():
    document = {"specversion": "1.0", "id": "e1", "type": "T", "source": "/s", "data": {"a": 1}}
    headers = [("content-type", b"application/cloudevents+json")]
    changed = CODEC.encode_any(Record("t", 0, 1, 1, None, json.dumps(document).encode(), headers), {"a": 2})
    assert changed.value == b'{"a": 2}'
    assert CODEC.metadata(changed).event_id == "e1"
    assert CODEC.decode_any(changed) == ("T", {"a": 2})
