"""Events to records and back: Confluent framing, Avro, the CloudEvents envelope.

Encoding and decoding are synchronous; what needs the registry (`prepare`, `load`) is not, and is done once per schema.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import fastavro
import pydantic
from pydantic_core import PydanticUndefined

from choreo.errors import DecodeError, EncodeError, SchemaNotCachedError
from choreo.events import Event, Metadata, key_of
from choreo.log.port import Headers, NewRecord, Record
from choreo.wire import envelope
from choreo.wire.avro import identity, is_recursive, name_of, normal, without
from choreo.wire.datum import MODEL, Convert
from choreo.wire.registry import Registry
from choreo.wire.schema import default_of, plan_of

E = TypeVar("E", bound=Event)

GUID_HEADER = "__value_schema_id"
_ID, _GUID = struct.Struct(">bI"), struct.Struct(">b16s")
_DEEPEST = 1000
"""Bytes that a value of a recursive schema may have: each level takes one, and fastavro's C stack ends below 10,000."""
_BROKEN = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    fastavro.read.SchemaResolutionError,
)
"""What fastavro, and validators of event classes, raise for bytes and values that do not suit."""


class _Schema(NamedTuple):
    """A writer's schema, as registered and as fastavro takes it, and the bytes that a value of it may have."""

    raw: Any
    parsed: Any
    limit: float


class _Writer(NamedTuple):
    """How one event class is written."""

    topic: str
    prefix: bytes
    schema: Any
    datum: Convert
    type_name: str
    address: str


class _Reader(NamedTuple):
    """How records of one writer's schema become events of one class; no reader's schema: the two are the same."""

    writer: _Schema
    reader: Any
    convert: Convert | None


class Codec:
    """Turns events into records and records into events.

    Args:
        registry: where schemas are registered and found.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._writers: dict[type[Event], _Writer] = {}
        self._constant: dict[tuple[type[Event], str], Headers] = {}
        self._schemas: dict[int | str, _Schema] = {}
        self._readers: dict[tuple[int | str, type[Event]], _Reader] = {}

    async def prepare(self, *, writes: Iterable[type[Event]], reads: Iterable[type[Event]]) -> None:
        """Register the schemas of classes to be written, and check those to be read. May be repeated.

        Raises:
            DeclarationError: a class has a field that Avro cannot hold.
            IncompatibleSchemaError, ConfigurationError: the registry refuses a schema.
            RegistryUnavailableError: it gave no answer; may be repeated.
        """
        for event_class in reads:
            plan_of(event_class)
        for event_class in writes:
            if event_class not in self._writers:
                plan, contract = plan_of(event_class), event_class.contract
                schema_id = await self._registry.register(f"{contract.topic}-{contract.type_name}", plan.schema)
                schema = self._schemas.setdefault(schema_id, _parsed(schema_id, plan.schema))
                self._writers[event_class] = _Writer(
                    contract.topic,
                    _ID.pack(0, schema_id),
                    schema.parsed,
                    plan.write,
                    contract.type_name,
                    self._registry.address(schema_id),
                )

    async def load(self, schema_id: int | str) -> None:
        """Bring a writer's schema into memory.

        Raises:
            SchemaNotFoundError: the registry does not know it. Permanent.
            DecodeError: what it has under this id is no usable Avro schema. Permanent.
            RegistryUnavailableError: the registry gave no answer; may be repeated.
        """
        if schema_id not in self._schemas:
            self._schemas[schema_id] = _parsed(schema_id, await self._registry.schema(schema_id))

    def encode(self, event: Event, meta: Metadata, *, timestamp: int | None = None) -> NewRecord:
        """The record of an event, with `meta` as its headers; `timestamp` is in milliseconds.

        Raises:
            EncodeError: a value does not fit the schema, named by its field; or the class was not prepared.
        """
        writer = self._writers.get(type(event))
        if writer is None:
            name = type(event).__qualname__
            raise EncodeError(f"event {name} is not prepared", remedy=f"await Codec.prepare(writes=[{name}], reads=[])")
        datum = writer.datum(event)
        stream = BytesIO()
        stream.write(writer.prefix)
        try:
            fastavro.schemaless_writer(stream, writer.schema, datum)
        except _BROKEN as error:
            raise _unwritable(event, datum, error) from None
        shared = self._constant.get((type(event), meta.source))
        if shared is None:
            shared = envelope.constant_headers(writer.type_name, meta.source, writer.address)
            self._constant[type(event), meta.source] = shared
        key = key_of(event)
        return NewRecord(writer.topic, key, stream.getvalue(), envelope.write(meta, shared, key), timestamp)

    def metadata(self, record: Record) -> Metadata:
        """What the record's headers say; see `envelope.read`."""
        return envelope.read(record)

    def type_of(self, record: Record, meta: Metadata) -> str:
        """The event's type: as its producer wrote it, or the name of the writer's schema.

        Raises:
            SchemaNotCachedError: `load` that schema first.
            DecodeError: the record has neither.
        """
        if meta.type_name:
            return meta.type_name
        schema_id, _, _ = _opened(record)
        return name_of(self._schema(schema_id).raw) if schema_id is not None else ""

    def decode(self, record: Record, event_class: type[E]) -> E:
        """The event in a record.

        Raises:
            SchemaNotCachedError: `load` the writer's schema first.
            DecodeError: this record will never be an event of this class.
        """
        schema_id, stream, data = _opened(record)
        if schema_id is None:
            return _validated(record, event_class, _known_fields(event_class, data))
        plan = self._readers.get((schema_id, event_class)) or self._reader(record, schema_id, event_class)
        datum = _read(record, stream, plan.writer, plan.reader)
        return _validated(record, event_class, datum, plan.convert)

    def decode_any(self, record: Record) -> tuple[str, dict[str, Any]]:
        """The type name and the plain data of a record of any type, by its writer's schema alone.

        Raises:
            SchemaNotCachedError: `load` the writer's schema first.
            DecodeError: this record holds no event.
        """
        schema_id, stream, data = _opened(record)
        if schema_id is not None:
            schema = self._schema(schema_id)
            data = _read(record, stream, schema, None)
            name = name_of(schema.raw)
        else:
            name = envelope.read(record).type_name
        return name, data if isinstance(data, dict) else {"data": data}

    def _schema(self, schema_id: int | str) -> _Schema:
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise SchemaNotCachedError(schema_id) from None

    def _reader(self, record: Record, schema_id: int | str, event_class: type[Event]) -> _Reader:
        writer, plan = self._schema(schema_id), plan_of(event_class)
        written, wanted = name_of(writer.raw), event_class.contract.type_name
        if written.rpartition(".")[2] != wanted.rpartition(".")[2]:  # Avro matches records by their short names
            raise _undecodable(record, event_class, f"schema {schema_id} is of {written or 'no record'}")
        same = not plan.ambiguous and identity(writer.raw) == identity(plan.schema)
        reader = _Reader(writer, None if same else _reading_schema(event_class), plan.read)
        self._readers[schema_id, event_class] = reader
        return reader


def _parsed(schema_id: int | str, schema: Any) -> _Schema:
    try:
        plain = normal(schema)
        # A writer's defaults mean nothing to a reader, so a wrong one is no reason to refuse its records.
        parsed = fastavro.parse_schema(without(plain, "default"))
        return _Schema(plain, parsed, _DEEPEST if is_recursive(plain) else math.inf)
    except (fastavro.schema.SchemaParseException, *_BROKEN) as error:
        raise DecodeError(f"schema {schema_id} is no Avro schema that can be read", why=str(error)) from None


def _reading_schema(event_class: type[Event]) -> Any:
    """The class's schema for resolving: fastavro hands out defaults as they stand there, so they are Python's own."""
    plan = plan_of(event_class)
    parsed: Any = fastavro.parse_schema(plan.schema)
    for name, schema in parsed["__named_schemas"].items():
        model = plan.models.get(name)
        if model is None:
            continue
        for field in schema["fields"]:
            default = default_of(model.model_fields[field["name"]])
            if default is not PydanticUndefined:
                field["default"] = default
        if plan.ambiguous:
            schema["fields"].append({"name": MODEL, "type": "null", "default": model})
    return parsed


def _opened(record: Record) -> tuple[int | str | None, BytesIO, Any]:
    """The writer's schema id and the Avro data; or no id, and data that came as JSON."""
    value = record.value
    if value is None:
        raise envelope.unreadable(record, "its value is null, a tombstone")
    for name, header in record.headers:
        if name == GUID_HEADER:
            schema_id, _ = _schema_id(header)
            if schema_id is None:
                raise envelope.unreadable(record, f"its header {GUID_HEADER} is no schema id")
            return schema_id, BytesIO(value), None
    schema_id, size = _schema_id(value)
    if schema_id is None:
        data = envelope.foreign_data(record)
        return _opened(record._replace(value=data, headers=[])) if isinstance(data, bytes) else (None, BytesIO(), data)
    stream = BytesIO(value)
    stream.seek(size)
    return schema_id, stream, None


def _schema_id(framing: bytes) -> tuple[int | str | None, int]:
    """Confluent framing: 0 and a 4-byte id, or 1 and a 16-byte GUID. Returns the id and the bytes it took."""
    magic = framing[:1]
    if magic == b"\0" and len(framing) >= _ID.size:
        return _ID.unpack_from(framing)[1], _ID.size
    if magic == b"\1" and len(framing) >= _GUID.size:
        return str(UUID(bytes=_GUID.unpack_from(framing)[1])), _GUID.size
    return None, 0


def _read(record: Record, stream: BytesIO, writer: _Schema, reader: Any) -> Any:
    if writer.limit < len(record.value or b""):
        why = f"its schema is recursive, and values of such schemas are read up to {_DEEPEST} bytes"
        raise envelope.unreadable(record, why)
    try:
        datum = fastavro.schemaless_reader(stream, writer.parsed, reader)
    except _BROKEN as error:
        why = f"its value does not suit schema {name_of(writer.raw)}, {type(error).__name__}: {error}"
        raise envelope.unreadable(record, why) from None
    if stream.read(1):
        raise envelope.unreadable(record, f"bytes are left after its {name_of(writer.raw)}")
    return datum


def _validated(record: Record, event_class: type[E], datum: Any, convert: Convert | None = None) -> E:
    try:
        # Strict classes would refuse a list for a tuple and a symbol for an Enum, which is how Avro data looks.
        return event_class.model_validate(convert(datum) if convert else datum, strict=False)
    except pydantic.ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        why = "; ".join(f"field {'.'.join(map(str, one['loc'])) or '(all)'}: {one['msg']}" for one in faults[:3])
    except _BROKEN as error:  # a validator of the class may raise what it likes
        why = f"{type(error).__name__}: {error}"
    raise _undecodable(record, event_class, why)


def _known_fields(event_class: type[Event], data: Any) -> Any:
    """JSON data without fields that the class does not know, as Avro's resolution would leave them out."""
    if not isinstance(data, dict):
        return data
    return {name: value for name, value in data.items() if name in event_class.model_fields}


def _undecodable(record: Record, event_class: type[Event], why: str) -> DecodeError:
    return DecodeError(f"record {envelope.place(record)} is no {event_class.contract.type_name}", why=why)


def _unwritable(event: Event, datum: Any, error: Exception) -> EncodeError:
    where = _misfit(datum, "")
    return EncodeError(
        f"event {type(event).__qualname__} cannot be written{where and f': field {where}'}",
        why=f"{type(error).__name__}: {error}",
        remedy="an int has 64 bits, a string is valid Unicode",
    )


def _misfit(datum: Any, path: str) -> str:
    """The path of a value that its class allows and Avro does not: a long beyond 64 bits, half a surrogate pair."""
    if isinstance(datum, dict):
        found = (_misfit(value, f"{path}.{name}" if path else name) for name, value in datum.items())
    elif isinstance(datum, (list, tuple)):
        found = (_misfit(value, path) for value in datum)
    else:
        broken = isinstance(datum, str) and datum.encode(errors="ignore").decode() != datum
        large = isinstance(datum, int) and not -(2**63) <= datum < 2**63
        return path if broken or large else ""
    return next(filter(None, found), "")
