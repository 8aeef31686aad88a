"""Records that choreo did not write, and records that nobody should have written."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.errors import DecodeError, SchemaNotCachedError
from choreo.log.port import Headers, Record
from choreo.wire.schema import schema_of
from tests.unit.wire.samples import META, ORDER, Everything, MemoryRegistry, Order, codec_for, stored
from tests.unit.wire.test_roundtrip import EVERYTHING

GUID = "0b5c1c5e-3ba9-4f2e-9d1c-0f3a5b7c9d1e"
REGISTRY = MemoryRegistry()
REGISTRY.schemas[GUID] = schema_of(Order)
CODEC = asyncio.run(codec_for(Order, Everything, registry=REGISTRY))
asyncio.run(CODEC.load(GUID))
GOOD = stored(CODEC.encode(ORDER, META))
VALUE = GOOD.value or b""
JSON_ORDER = ORDER.model_dump(mode="json")


def record(value: bytes | None, headers: Headers | None = None) -> Record:
    return Record("orders", 3, 7, 5, b"o1", value, headers or [])


def structured(document: Any, content_type: bytes = b"application/cloudevents+json; charset=utf-8") -> Record:
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    return record(value, [("content-type", content_type)])


def test_the_second_framing_is_read_as_a_prefix():
    value = b"\x01" + UUID(GUID).bytes + VALUE[5:]
    assert CODEC.decode(record(value), Order) == ORDER
    assert CODEC.decode_any(record(value))[0] == "Order"


def test_the_second_framing_is_read_as_a_header():
    framed = record(VALUE[5:], [("a", b""), ("__value_schema_id", b"\x01" + UUID(GUID).bytes)])
    assert CODEC.decode(framed, Order) == ORDER
    assert CODEC.type_of(framed, CODEC.metadata(framed)) == "Order"


@pytest.mark.parametrize("header", [b"", b"\x01", b"\x07" + bytes(16)])
def test_a_broken_schema_header_is_undecodable(header):
    with pytest.raises(DecodeError, match=r"record orders/3/7 .*its header __value_schema_id is no schema id"):
        CODEC.decode(record(VALUE[5:], [("__value_schema_id", header)]), Order)


def test_an_unknown_schema_id_asks_to_be_loaded():
    with pytest.raises(SchemaNotCachedError) as missing:
        CODEC.decode(record(b"\x00\x00\x00\x00\x63" + VALUE[5:]), Order)
    assert missing.value.schema_id == 99


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "its value is null, a tombstone"),
        (b"", "no Confluent framing"),
        (b"\x00", "no Confluent framing"),
        (b"\x00\x00\x00\x01", "no Confluent framing"),
        (b"\x01" + bytes(15), "no Confluent framing"),
        (b"garbage", "no Confluent framing"),
        (b'{"a": 1}', "its content type names no JSON"),
        (VALUE[:5], "does not suit schema Order, EOFError"),
        (VALUE[:-1], "does not suit schema Order"),
        (VALUE + b"\x00", "bytes are left after its Order"),
        (VALUE[:5] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", "does not suit schema Order"),
        (VALUE[:5] + b"\xff" * 40, "does not suit schema Order"),
        (VALUE[:5] + b"\x04\xff\xff" + VALUE[8:], "does not suit schema Order, UnicodeDecodeError"),
    ],
)
def test_malformed_values_are_undecodable(value, message):
    for read in (lambda: CODEC.decode(record(value), Order), lambda: CODEC.decode_any(record(value))):
        with pytest.raises(DecodeError, match=f"record orders/3/7 .*{message}"):
            read()


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_make_an_event_or_a_decode_error(noise):
    framed = VALUE[:5] + noise
    try:
        event = CODEC.decode(record(framed), Order)
    except DecodeError:
        return
    assert isinstance(event, Order)


@given(st.data())
@settings(max_examples=300)
def test_flipped_and_cut_bytes_make_an_event_or_a_decode_error(data):
    value = bytearray(CODEC.encode(EVERYTHING, META).value or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(5, len(value)))
    try:
        event = CODEC.decode(record(bytes(value[:cut])), Everything)
    except DecodeError:
        return
    assert isinstance(event, Everything)


def test_a_large_record_is_read():
    large = ORDER.model_copy(update={"order_id": "x" * 5_000_000, "lines": ORDER.lines * 20_000})
    assert CODEC.decode(stored(CODEC.encode(large, META)), Order) == large


def test_structured_mode_carries_json():
    document = {"specversion": "1.0", "id": "e9", "type": "Order", "source": "/other", "data": JSON_ORDER}
    got = structured(document)
    assert CODEC.decode(got, Order) == ORDER
    assert CODEC.type_of(got, CODEC.metadata(got)) == "Order"
    assert CODEC.decode_any(got) == ("Order", JSON_ORDER)


def test_structured_mode_carries_framed_avro_in_base64():
    got = structured({"id": "e9", "type": "Order", "source": "/other", "data_base64": base64.b64encode(VALUE).decode()})
    assert CODEC.decode(got, Order) == ORDER


def test_json_fields_that_the_class_does_not_know_are_left_out_as_avro_would():
    assert CODEC.decode(structured({"id": "e9", "data": {**JSON_ORDER, "later": 1}}), Order) == ORDER


def test_binary_mode_with_json_is_read():
    headers = [("ce_id", b"e9"), ("ce_type", b"Order"), ("content-type", b"application/json")]
    assert CODEC.decode(record(json.dumps(JSON_ORDER).encode(), headers), Order) == ORDER


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "its value is no JSON"),
        (b"\xff\xfe\xfd", "its value is no JSON"),
        (b"[" * 100_000, "its value is no JSON"),
        ([], "its CloudEvents document is no JSON object"),
        ({"id": "1"}, "is no Order"),
        ({"id": "1", "data": "text"}, "is no Order: field .all.: Input should be a valid dictionary"),
        ({"id": "1", "data": {"order_id": "1"}}, "is no Order: field total: Field required; field lines"),
        ({"id": "1", "data_base64": "!"}, "data_base64 is no base64"),
        ({"id": "1", "data_base64": 5}, "data_base64 is no base64"),
        ({"id": "1", "data_base64": ""}, "no Confluent framing"),
    ],
)
def test_malformed_structured_mode_is_undecodable(document, message):
    with pytest.raises(DecodeError, match=f"record orders/3/7 .*{message}"):
        CODEC.decode(structured(document), Order)


@pytest.mark.parametrize("content_type", [b"application/cloudevents-batch+json", b"application/cloudevents+avro"])
def test_other_event_formats_are_named_in_the_error(content_type):
    got = structured({"id": "1"}, content_type)
    for read in (lambda: CODEC.decode(got, Order), lambda: CODEC.metadata(got)):
        with pytest.raises(DecodeError, match=r"is not application/cloudevents\+json, the one event format read"):
            read()
