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

_STRUCTURED = b"application/cloudevents"
_STRUCTURED_JSON = b"application/cloudevents+json"
_TEXT = frozenset(
    {"ce_id", "ce_type", "ce_source", "ce_time", "ce_correlationid", "ce_causationid", "traceparent", "tracestate"}
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def constant_headers(type_name: str, source: str, dataschema: str) -> Headers:
    """The headers that all events of one class and source share."""
    return [
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/avro"),
        ("ce_type", type_name.encode()),
        ("ce_source", source.encode()),
        ("ce_dataschema", dataschema.encode()),
    ]


def write(meta: Metadata, constant: Headers, key: bytes) -> Headers:
    """The headers of one event; `constant` is from `constant_headers`, the record's key is its subject."""
    headers = [
        *constant,
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
    got = dict(record.headers).get
    event_id = got("ce_id")
    if event_id is None:
        content_type = got("content-type")
        if content_type is not None and content_type.startswith(_STRUCTURED):
            return _of_document(record)
    causation_id, traceparent, tracestate = got("ce_causationid"), got("traceparent"), got("tracestate")
    try:
        if record.key:
            record.key.decode()
        found = event_id.decode() if event_id else _id_of(record)
        correlation_id = got("ce_correlationid")
        return Metadata(
            found,
            got("ce_type", b"").decode(),
            got("ce_source", b"").decode() or f"/{record.topic}",
            got("ce_time", b"").decode() or _time_of(record),
            correlation_id.decode() if correlation_id else found,
            causation_id.decode() if causation_id else None,
            traceparent.decode() if traceparent else None,
            tracestate.decode() if tracestate else None,
        )
    except UnicodeDecodeError:
        raise unreadable(record, f"{_invalid_part(record)} is no UTF-8") from None


def place(record: Record) -> str:
    """Where a record lies, for messages: topic/partition/offset."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def unreadable(record: Record, why: str) -> DecodeError:
    """The error for a record that will never be an event, whatever class it is read as."""
    return DecodeError(f"record {place(record)} cannot be read", why=why)


def foreign_data(record: Record) -> Any:
    """The event in a value that has no Confluent framing: JSON data, or bytes that a document carries.

    Raises:
        DecodeError: the value is none of structured-mode CloudEvents and JSON, or broken.
    """
    content_type = dict(record.headers).get("content-type", b"").partition(b";")[0].strip()
    if content_type.startswith(_STRUCTURED):
        document = _document(record)
        if "data_base64" not in document:
            return document.get("data")
        try:
            return base64.b64decode(document["data_base64"], validate=True)
        except (TypeError, ValueError) as error:
            raise unreadable(record, f"data_base64 is no base64, {error}") from None
    if content_type == b"application/json" or content_type.endswith(b"+json"):
        return _json(record)
    raise unreadable(record, "its value has no Confluent framing and its content type names no JSON")


def _document(record: Record) -> dict[str, Any]:
    content_type = dict(record.headers)["content-type"]
    if content_type.partition(b";")[0].strip() != _STRUCTURED_JSON:
        raise unreadable(record, f"{content_type!r} is not application/cloudevents+json, the one event format read")
    document = _json(record)
    if not isinstance(document, dict):
        raise unreadable(record, "its CloudEvents document is no JSON object")
    return document


def _json(record: Record) -> Any:
    try:
        return json.loads(record.value or b"")
    except (ValueError, RecursionError) as error:
        raise unreadable(record, f"its value is no JSON, {error}") from None


def _of_document(record: Record) -> Metadata:
    document = _document(record)

    def attribute(name: str) -> str | None:
        value = document.get(name)
        if value is not None and not isinstance(value, str):
            raise unreadable(record, f"the CloudEvents attribute {name} is no text")
        return value or None

    headers = dict(record.headers)
    try:
        trace = [headers[name].decode() if name in headers else None for name in ("traceparent", "tracestate")]
    except UnicodeDecodeError:
        raise unreadable(record, f"{_invalid_part(record)} is no UTF-8") from None
    event_id = attribute("id") or _id_of(record)
    return Metadata(
        event_id,
        attribute("type") or "",
        attribute("source") or f"/{record.topic}",
        attribute("time") or _time_of(record),
        attribute("correlationid") or event_id,
        attribute("causationid"),
        *trace,
    )


def _id_of(record: Record) -> str:
    return record_event_id(record.topic, record.partition, record.offset, time_ms=record.timestamp)


def _time_of(record: Record) -> str:
    """The record's timestamp as RFC 3339, for producers that wrote no time; the epoch if it has none."""
    try:
        time = _EPOCH + timedelta(milliseconds=max(record.timestamp, 0))
    except OverflowError:
        time = _EPOCH
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _invalid_part(record: Record) -> str:
    parts = {f"its header {name}": value for name, value in record.headers if name in _TEXT}
    for part, value in {"its key": record.key or b"", **parts}.items():
        try:
            value.decode()
        except UnicodeDecodeError:
            return part
    return "it"
