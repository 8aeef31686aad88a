"""The headers of a record: CloudEvents 1.0, Kafka binding, and W3C trace context.

choreo writes binary mode: attributes as `ce_*` headers, the event alone as the value. It reads binary mode, structured
mode (one JSON document as the value) and records without any CloudEvents attributes. Sources: CloudEvents 1.0.2, its
Kafka protocol binding 1.0.2, W3C Trace Context.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from choreo.errors import DecodeError
from choreo.events import Metadata
from choreo.log.port import Headers, Record
from choreo.wire.ids import derive_event_id

_TEXT = (
    *("ce_id", "ce_type", "ce_source", "ce_time", "ce_correlationid", "ce_causationid", "traceparent", "tracestate"),
    *("ce_compensates", "ce_parentid"),
)
_metadata: Callable[[tuple[str | None, ...]], Metadata] = partial(tuple.__new__, Metadata)  # thrice as fast as its own
ID, OPTIONAL = 5, 9
"""Where `write` puts the id, and what not all events have."""
_YEAR_10000 = 253_402_300_800_000
"""Milliseconds after which datetime knows no times."""


def constant(type_name: str, dataschema: str) -> Headers:
    """The headers that all events of a type have in common."""
    return [
        ("ce_specversion", b"1.0"),
        ("content-type", b"application/avro"),
        ("ce_type", type_name.encode()),
        ("ce_dataschema", dataschema.encode()),
    ]


def write(meta: Metadata, common: Headers, key: bytes) -> Headers:
    """The headers of one event, after those of its type; the record's key is its subject."""
    headers = [
        *common,
        ("ce_source", meta.source.encode()),
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
    if meta.compensates is not None:
        headers.append(("ce_compensates", meta.compensates.encode()))
    if meta.parent_id is not None:
        headers.append(("ce_parentid", meta.parent_id.encode()))
    return headers


def read(record: Record) -> Metadata:
    """What a record says about its event.

    An event without `ce_correlationid` starts a saga of its own name: its id. A record without CloudEvents attributes
    gets an id made of its place in the log, and its topic as its source.

    Raises:
        DecodeError: a header is no UTF-8, or the value is no CloudEvents document though its content type says so.
    """
    record = binary_mode(record)
    got = dict(record.headers).get
    when = _known(record.timestamp)
    try:
        (record.key or b"").decode()
        event_id = got("ce_id", b"").decode() or id_of(record)
        return _metadata(
            (
                event_id,
                got("ce_type", b"").decode(),
                got("ce_source", b"").decode() or f"/{record.topic}",
                got("ce_time", b"").decode() or _time_of(when),
                got("ce_correlationid", b"").decode() or event_id,
                got("ce_causationid", b"").decode() or None,
                got("traceparent", b"").decode() or None,
                got("tracestate", b"").decode() or None,
                got("ce_compensates", b"").decode() or None,
                got("ce_parentid", b"").decode() or None,
            )
        )
    except UnicodeDecodeError as error:
        bad = "key" if record.key == error.object else f"header {next(n for n in _TEXT if got(n) == error.object)}"
        raise unreadable(record, f"its {bad} is no UTF-8") from None


def id_of(record: Record) -> str:
    """The id of a record that names none: made of its place in the log."""
    when = _known(record.timestamp)
    return derive_event_id("", record.topic, str(record.partition), record.offset, time_ms=when)


def _known(timestamp: int) -> int:
    return timestamp if 0 <= timestamp < _YEAR_10000 else 0


def _time_of(when: int) -> str:
    return datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def binary_mode(record: Record) -> Record:
    """The record as it would be in binary mode: the attributes of a structured-mode document become headers."""
    if record.value is not None and record.value[:1] == b"\0":  # Confluent framing, which no JSON begins with
        return record
    if not dict(record.headers).get("content-type", b"").startswith(b"application/cloudevents"):
        return record
    mode = _content_type(record)
    if mode != b"application/cloudevents+json":
        raise unreadable(record, f"{mode!r} is not application/cloudevents+json, the one event format read")
    document = json_of(record)
    if not isinstance(document, dict):
        raise unreadable(record, "its CloudEvents document is no JSON object")
    headers = [header for header in record.headers if header[0] != "content-type"]
    for name in ("id", "type", "source", "time", "correlationid", "causationid", "compensates", "parentid"):
        value = document.get(name) or ""
        if not isinstance(value, str):
            raise unreadable(record, f"the CloudEvents attribute {name} is no text")
        headers.append((f"ce_{name}", value.encode(errors="surrogatepass")))
    if "data_base64" not in document:
        data = json.dumps(document.get("data")).encode()
        return record._replace(value=data, headers=[*headers, ("content-type", b"application/json")])
    try:
        return record._replace(value=base64.b64decode(document["data_base64"], validate=True), headers=headers)
    except (TypeError, ValueError) as error:
        raise unreadable(record, f"data_base64 is no base64, {error}") from None


def _content_type(record: Record) -> bytes:
    return dict(record.headers).get("content-type", b"").partition(b";")[0].strip()


def json_of(record: Record) -> Any:
    """The value of a record that says it is JSON; DecodeError if it is none."""
    if not _content_type(record).endswith((b"/json", b"+json")):
        raise unreadable(record, "its value has no Confluent framing and its content type names no JSON")
    try:
        return json.loads(record.value or b"")
    except (ValueError, RecursionError) as error:
        raise unreadable(record, f"its value is no JSON, {error}") from None


def unreadable(record: Record, why: str, what: str = "cannot be read") -> DecodeError:
    """The error for a record that will never be an event; it names topic/partition/offset."""
    return DecodeError(f"record {record.topic}/{record.partition}/{record.offset} {what}", why=why)
