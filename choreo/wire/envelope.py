"""The headers of a record: CloudEvents 1.0, Kafka binding, and W3C trace context.

choreo writes binary mode: attributes as `ce_*` headers, the event alone as the value. It reads binary mode, structured
mode (one JSON document as the value) and records without any CloudEvents attributes. Sources: CloudEvents 1.0.2, its
Kafka protocol binding 1.0.2, W3C Trace Context.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from choreo.errors import DecodeError
from choreo.events import Metadata
from choreo.log.port import Headers, Record
from choreo.wire.ids import record_event_id

_TEXT = frozenset(
    {"ce_id", "ce_type", "ce_source", "ce_time", "ce_correlationid", "ce_causationid", "traceparent", "tracestate"}
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(meta: Metadata, type_name: str, dataschema: str, key: bytes) -> Headers:
    """The headers of one event of a type; the record's key is its subject."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/avro"),
        ("ce_type", type_name.encode()),
        ("ce_source", meta.source.encode()),
        ("ce_dataschema", dataschema.encode()),
        ("ce_id", meta.event_id.encode()),
        ("ce_time", meta.time.encode()),
        ("ce_subject", key),
        ("ce_correlationid", meta.correlation_id.encode()),
    ]
    if meta.causation_id is not None:
        headers.append(("ce_causationid", meta.causation_id.encode()))
    if meta.traceparent is not None:
        headers.append(("traceparent", meta.traceparent.encode()))
        if meta.tracestate is not None:
            headers.append(("tracestate", meta.tracestate.encode()))
    return headers


def read(record: Record) -> Metadata:
    """What a record says about its event.

    An event without `ce_correlationid` starts a saga of its own name: its id. A record without CloudEvents attributes
    gets an id made of its place in the log, and its topic as its source.

    Raises:
        DecodeError: a header is no UTF-8, or the value is no CloudEvents document though its content type says so.
    """
    record = binary_mode(record)
    text: dict[str, str] = {}
    name = "key"
    try:
        (record.key or b"").decode()
        for name, value in record.headers:
            if name in _TEXT:
                text[name] = value.decode()
    except UnicodeDecodeError:
        raise unreadable(record, f"its {'key' if name == 'key' else 'header ' + name} is no UTF-8") from None
    got = text.get
    event_id = got("ce_id") or record_event_id(record.topic, record.partition, record.offset, time_ms=record.timestamp)
    return Metadata(
        event_id,
        got("ce_type", ""),
        got("ce_source") or f"/{record.topic}",
        got("ce_time") or _time_of(record),
        got("ce_correlationid") or event_id,
        got("ce_causationid") or None,
        got("traceparent") or None,
        got("tracestate") or None,
    )


def binary_mode(record: Record) -> Record:
    """The record as it would be in binary mode: the attributes of a structured-mode document become headers.

    Raises:
        DecodeError: the value is no CloudEvents document though its content type says so.
    """
    if not dict(record.headers).get("content-type", b"").startswith(b"application/cloudevents"):
        return record
    mode = content_type(record)
    if mode != b"application/cloudevents+json":
        raise unreadable(record, f"{mode!r} is not application/cloudevents+json, the one event format read")
    document = json_of(record)
    if not isinstance(document, dict):
        raise unreadable(record, "its CloudEvents document is no JSON object")
    encoded, data = document.pop("data_base64", None), document.pop("data", None)
    headers = [header for header in record.headers if header[0] != "content-type"]
    for name, value in document.items():
        if f"ce_{name}" in _TEXT and value is not None:
            if not isinstance(value, str):
                raise unreadable(record, f"the CloudEvents attribute {name} is no text")
            headers.append((f"ce_{name}", value.encode(errors="surrogatepass")))
    if encoded is None:
        return record._replace(value=json.dumps(data).encode(), headers=[*headers, ("content-type", b"text/json")])
    try:
        return record._replace(value=base64.b64decode(encoded, validate=True), headers=headers)
    except (TypeError, ValueError) as error:
        raise unreadable(record, f"data_base64 is no base64, {error}") from None


def content_type(record: Record) -> bytes:
    """The media type that a record names, without its parameters; empty if it names none."""
    return dict(record.headers).get("content-type", b"").partition(b";")[0].strip()


def json_of(record: Record) -> Any:
    """The value of a record as JSON.

    Raises:
        DecodeError: it is none.
    """
    try:
        return json.loads(record.value or b"")
    except (ValueError, RecursionError) as error:
        raise unreadable(record, f"its value is no JSON, {error}") from None


def place(record: Record) -> str:
    """Where a record lies, for messages: topic/partition/offset."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def unreadable(record: Record, why: str) -> DecodeError:
    """The error for a record that will never be an event, whatever class it is read as."""
    return DecodeError(f"record {place(record)} cannot be read", why=why)


def _time_of(record: Record) -> str:
    """The record's timestamp as RFC 3339, for producers that wrote no time; the epoch if it has none."""
    try:
        time = _EPOCH + timedelta(milliseconds=max(record.timestamp, 0))
    except OverflowError:
        time = _EPOCH
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
