from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo.errors import DecodeError
from choreo.events import Metadata
from choreo.log.port import Headers, Record
from choreo.wire import envelope

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEXT = st.text(min_size=1)


def record(
    headers: Headers, value: bytes | None = b"", key: bytes | None = b"k", timestamp: int = 1_770_000_000_123
) -> Record:
    return Record("orders", 3, 7, timestamp, key, value, headers)


@given(
    st.builds(
        Metadata,
        event_id=TEXT,
        type_name=TEXT,
        source=TEXT,
        time=TEXT,
        correlation_id=TEXT,
        causation_id=st.none() | TEXT,
        traceparent=st.none() | TEXT,
        tracestate=st.none(),
        compensates=st.none() | TEXT,
        parent_id=st.none() | TEXT,
    )
)
def test_metadata_survives_the_headers(meta):
    headers = envelope.write(meta, envelope.constant(meta.type_name, "urn:x:1"), b"k")
    assert envelope.read(record(headers)) == meta


def test_the_headers_are_cloudevents_in_binary_mode():
    meta = Metadata("e1", "Order", "shop", "2026-02-03T04:05:06Z", "c1", "e0", TRACE, "a=b")
    headers = envelope.write(meta, envelope.constant("Order", "urn:x:1"), b"o1")
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "content-type": b"application/avro",
        "ce_type": b"Order",
        "ce_source": b"shop",
        "ce_dataschema": b"urn:x:1",
        "ce_id": b"e1",
        "ce_time": b"2026-02-03T04:05:06Z",
        "ce_subject": b"o1",
        "ce_correlationid": b"c1",
        "ce_causationid": b"e0",
        "traceparent": TRACE.encode(),
        "tracestate": b"a=b",
    }


def test_a_trace_state_without_a_parent_means_nothing_and_is_not_written():
    meta = Metadata("e1", "Order", "shop", "t", "c1", tracestate="a=b")
    assert "tracestate" not in dict(envelope.write(meta, envelope.constant("Order", "urn:x:1"), b"k"))


def test_foreign_cloudevents_begin_a_saga_of_their_own():
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"x1"), ("ce_type", b"T"), ("ce_source", b"/crm")]
    meta = envelope.read(record([*headers, ("traceparent", TRACE.encode())]))
    assert meta == Metadata("x1", "T", "/crm", "2026-02-02T02:40:00.123Z", "x1", None, TRACE)


def test_a_foreign_correlation_id_is_taken_over():
    assert envelope.read(record([("ce_id", b"x1"), ("ce_correlationid", b"c9")])).correlation_id == "c9"


def test_a_record_without_headers_is_named_by_its_place():
    meta = envelope.read(record([]))
    assert meta == Metadata(meta.event_id, "", "/orders", "2026-02-02T02:40:00.123Z", meta.event_id)
    assert int(meta.event_id.replace("-", "")[:12], 16) == 1_770_000_000_123
    assert meta.event_id[14] == "8"
    assert envelope.read(record([])) == meta
    assert envelope.read(record([])._replace(offset=8)).event_id != meta.event_id
    assert envelope.read(record([])._replace(partition=4)).event_id != meta.event_id


@pytest.mark.parametrize("timestamp", [-1, 0, 2**62])
def test_strange_timestamps_do_no_harm(timestamp):
    meta = envelope.read(record([], timestamp=timestamp))
    assert len(meta.event_id) == 36
    assert meta.time == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "name",
    ["ce_id", "ce_type", "ce_source", "ce_time", "ce_correlationid", "ce_causationid", "traceparent", "tracestate"],
)
def test_a_header_that_is_no_utf8_is_named(name):
    headers = [("x-binary", b"\xff"), ("ce_id", b"1"), (name, b"\xff\xfe")]
    with pytest.raises(DecodeError, match=f"record orders/3/7 cannot be read: its header {name} is no UTF-8"):
        envelope.read(record(headers))


def test_a_key_that_is_no_utf8_is_named():
    with pytest.raises(DecodeError, match="record orders/3/7 cannot be read: its key is no UTF-8"):
        envelope.read(record([], key=b"\xff"))


def test_foreign_binary_headers_do_not_disturb():
    assert envelope.read(record([("ce_id", b"1"), ("x-binary", b"\xff")], key=None)).event_id == "1"


def structured(document: object, headers: Headers | None = None) -> Record:
    content_type = ("content-type", b"application/cloudevents+json")
    return record([content_type, *(headers or [])], json.dumps(document).encode())


def test_structured_mode_is_read():
    document = {"id": "e1", "type": "T", "source": "/crm", "time": "2026-01-01T00:00:00Z", "correlationid": "c1"}
    meta = envelope.read(structured({**document, "causationid": "e0"}, [("traceparent", TRACE.encode())]))
    assert meta == Metadata("e1", "T", "/crm", "2026-01-01T00:00:00Z", "c1", "e0", TRACE)


def test_structured_mode_without_attributes_is_named_by_its_place():
    assert envelope.read(structured({})) == envelope.read(record([]))


def test_a_structured_attribute_that_is_no_text_is_named():
    with pytest.raises(DecodeError, match="the CloudEvents attribute id is no text"):
        envelope.read(structured({"id": 5}))


def test_a_structured_header_that_is_no_utf8_is_named():
    with pytest.raises(DecodeError, match="its header traceparent is no UTF-8"):
        envelope.read(structured({"id": "1"}, [("traceparent", b"\xff")]))


def test_the_id_and_what_not_all_events_have_are_where_others_look_for_them():
    common = envelope.constant("Order", "urn:x:1")
    least = envelope.write(Metadata("e1", "Order", "shop", "t", "c1"), common, b"o1")
    most = envelope.write(Metadata("e1", "Order", "shop", "t", "c1", "e0", TRACE, "a=b", "e2", "c0"), common, b"o1")
    assert most[envelope.ID] == ("ce_id", b"e1")
    assert most[: envelope.OPTIONAL] == least
    assert [name for name, _ in most[envelope.OPTIONAL :]] == [
        *("ce_causationid", "traceparent", "tracestate", "ce_compensates", "ce_parentid")
    ]
