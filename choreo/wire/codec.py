"""Events to records and back: Confluent framing, Avro, the CloudEvents envelope.

Encoding and decoding are synchronous; what needs the registry (`prepare`, `load`) is not, and is done once per schema.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import fastavro
import pydantic
from fastavro.read import SchemaResolutionError as Unresolvable

from choreo.errors import DecodeError, EncodeError, SchemaNotCachedError
from choreo.events import Event, Metadata, key_of, topic_of
from choreo.log.port import Headers, NewRecord, Record
from choreo.wire import envelope, plain
from choreo.wire.avro import identity, normal
from choreo.wire.datum import Convert
from choreo.wire.registry import Registry
from choreo.wire.schema import plan_of, quick_schema, reading_schema, schema_of

E = TypeVar("E", bound=Event)

GUID_HEADER = "__value_schema_id"
_ID, _GUID_SIZE = struct.Struct(">bI"), 17
_BROKEN = (ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, RuntimeError, Unresolvable)
"""What fastavro, and validators of event classes, raise for bytes and values that do not suit."""


_record: Callable[[tuple[Any, ...]], NewRecord] = partial(tuple.__new__, NewRecord)  # quicker than its own


class _Writer(NamedTuple):
    """What is the same for all records of an event class; `topic` is None where each event chooses its own."""

    topic: str | None
    framing: bytes
    schema: Any
    datum: Convert
    headers: Headers


class Codec:
    """Turns events into records and records into events, with schemas from a registry.

    What reads a record raises SchemaNotCachedError if its writer's schema is to be loaded first, and DecodeError if the
    record will never be what was asked for.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._writers: dict[type[Event], _Writer] = {}
        self._schemas: dict[int | str, Any] = {}
        self._reading: dict[tuple[int | str, type[Event]], tuple[Any, Any]] = {}

    async def prepare(self, *, writes: Iterable[type[Event]], reads: Iterable[type[Event]]) -> None:
        """Register the schemas of classes to be written, and check those to be read. May be repeated.

        Raises:
            DeclarationError: a class has a field that Avro cannot hold.
            IncompatibleSchemaError, ConfigurationError: the registry refuses a schema.
        """
        for event_class in reads:
            plan_of(event_class)
        for event_class in writes:
            if event_class not in self._writers:
                schema, contract = schema_of(event_class), event_class.contract
                for topic in reversed(contract.topics):  # who reads one of them looks for the contract there
                    schema_id = await self._registry.register(f"{topic}-{contract.type_name}", schema)
                parsed = self._schemas.setdefault(schema_id, _parsed(schema_id, schema))
                headers = envelope.constant(contract.type_name, self._registry.address(schema_id))
                framing, datum = _ID.pack(0, schema_id), plan_of(event_class).write
                only = contract.topics[0] if contract.choose is None else None
                self._writers[event_class] = _Writer(only, framing, parsed, datum, headers)

    async def load(self, schema_id: int | str) -> None:
        """Bring a writer's schema into memory; may be repeated after RegistryUnavailableError.

        Raises:
            SchemaNotFoundError, DecodeError: there is none under this id, or none that can be read. Permanent.
        """
        if schema_id not in self._schemas:
            self._schemas[schema_id] = _parsed(schema_id, await self._registry.schema(schema_id))

    def encode(self, event: Event, meta: Metadata, *, timestamp: int | None = None) -> NewRecord:
        """The record of an event, with `meta` as its headers; `timestamp` is in milliseconds.

        Raises:
            EncodeError: a value does not fit the schema, named by its field; or the class was not prepared, or its route
                names no topic.
        """
        writer = self._writers.get(type(event))
        if writer is None:
            name = type(event).__qualname__
            raise EncodeError(f"event {name} is not prepared", remedy=f"await Codec.prepare(writes=[{name}], reads=[])")
        topic, framing, schema, datum, headers = writer
        stream = BytesIO()
        stream.write(framing)
        try:
            fastavro.schemaless_writer(stream, schema, datum(event))
        except _BROKEN as error:
            what, remedy = f"event {type(event).__qualname__}", "build events by their constructor, which validates"
            raise EncodeError(f"{what} cannot be written", why=_reason(error), remedy=remedy) from None
        key = key_of(event)
        return _record(
            (topic or topic_of(event), key, stream.getvalue(), envelope.write(meta, headers, key), timestamp, None)
        )

    metadata = staticmethod(envelope.read)

    def type_of(self, record: Record, meta: Metadata) -> str:
        """The event's type: as its producer wrote it, or the name of the writer's schema; empty if it has neither."""
        if meta.type_name:
            return meta.type_name
        schema_id, _, _ = _opened(record)
        return _name_of(self._schema(schema_id)) if schema_id is not None else ""

    def decode(self, record: Record, event_class: type[E]) -> E:
        """The event in a record."""
        schema_id, stream, data = _opened(record)
        convert = None
        if schema_id is not None:
            reading = self._reading.get((schema_id, event_class)) or self._resolved(record, schema_id, event_class)
            data, convert = _read(record, stream, *reading), plan_of(event_class).read
        elif isinstance(data, dict):  # JSON without unknown fields, as Avro's resolution would leave them out
            data = {name: value for name, value in data.items() if name in event_class.model_fields}
        try:
            # Strict classes would refuse a list for a tuple and a symbol for an Enum, which is how Avro data looks.
            checked: E = event_class.__pydantic_validator__.validate_python(
                convert(data) if convert else data, strict=False
            )
            return checked
        except _BROKEN as error:  # a validator of the class may raise what it likes
            raise envelope.unreadable(record, _reason(error), f"is no {event_class.contract.type_name}") from None

    def decode_any(self, record: Record) -> tuple[str, dict[str, Any]]:
        """The type name and the plain data of a record of any type, by its writer's schema alone."""
        schema_id, stream, data = _opened(record)
        if schema_id is None:
            name = envelope.read(record).type_name
        else:
            schema = self._schema(schema_id)
            name, data = _name_of(schema), _read(record, stream, schema, None)
        return name, data if isinstance(data, dict) else {"data": data}

    def encode_any(self, record: Record, data: Any) -> Record:
        """The record with other data: as JSON has it (see `choreo.wire.plain`), checked against its writer's schema.

        Raises:
            EncodeError: the schema does not allow it, or JSON is not enough to say what the record says.
        """
        schema_id, stream, _ = _opened(record)
        record = envelope.binary_mode(record)
        if schema_id is None:
            return record._replace(value=json.dumps(data).encode())
        schema, old = self._schema(schema_id), stream.getvalue()
        if old and plain.encoded(schema, plain.as_json(_read(record, stream, schema, None))) != old:
            why = "as JSON it does not tell which of several types a part of it has"
            raise EncodeError(f"the data of this {_name_of(schema)} cannot be changed", why=why)
        return record._replace(value=(record.value or b"").removesuffix(old) + plain.encoded(schema, data))

    def _schema(self, schema_id: int | str) -> Any:
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise SchemaNotCachedError(schema_id) from None

    def _resolved(self, record: Record, schema_id: int | str, event_class: type[Event]) -> tuple[Any, Any]:
        """The schemas to read with: the writer's and the class's, or one that will do for both."""
        writer, plan = self._schema(schema_id), plan_of(event_class)
        name = _name_of(writer)
        if name.rpartition(".")[2] != event_class.contract.type_name.rpartition(".")[2]:
            # Avro matches records by their short names.
            why = f"schema {schema_id} is of {name or 'no record'}"
            raise envelope.unreadable(record, why, f"is no {event_class.contract.type_name}")
        same = not plan.ambiguous and identity(writer) == identity(plan.schema)
        found = (quick_schema(event_class), None) if same else (writer, reading_schema(event_class))
        self._reading[schema_id, event_class] = found
        return found


def written_with(record: Record) -> int | str | None:
    """The id of the schema that a record names; None if it names none.

    Raises:
        DecodeError: it has no value, or says that it is what it is not.
    """
    return _opened(record)[0]


def bare(record: Record) -> Record:
    """What `decode` needs of a record, where it is to be kept: without its key, and its headers if the value says it all."""
    topic, partition, offset, timestamp, _, value, headers = record
    if value is None or value[:1] != b"\0" or GUID_HEADER in dict(headers):
        return record
    return Record(topic, partition, offset, timestamp, None, value, [])


def _parsed(schema_id: int | str, schema: Any) -> Any:
    try:
        normal(schema)
        return fastavro.parse_schema(schema)
    except ValueError as error:
        raise DecodeError(f"schema {schema_id} is no Avro schema that can be read", why=str(error)) from None


def _name_of(parsed: Any) -> str:
    return str(parsed.get("name", "")) if isinstance(parsed, dict) else ""


def _opened(record: Record) -> tuple[int | str | None, BytesIO, Any]:
    """The writer's schema id and the Avro data; or no id, and data that came as JSON."""
    if record.value is None:
        raise envelope.unreadable(record, "its value is null, a tombstone")
    record = envelope.binary_mode(record)
    value, header = record.value or b"", dict(record.headers).get(GUID_HEADER)
    schema_id, size = _schema_id(value if header is None else header)
    if schema_id is not None:
        return schema_id, BytesIO(value[size:] if header is None else value), None
    if header is not None:
        raise envelope.unreadable(record, f"its header {GUID_HEADER} is no schema id")
    return None, BytesIO(), envelope.json_of(record)


def _schema_id(framing: bytes) -> tuple[int | str | None, int]:
    """Confluent framing: 0 and a 4-byte id, or 1 and a 16-byte GUID. Returns the id and the bytes it took."""
    if framing[:1] == b"\0" and len(framing) >= _ID.size:
        return _ID.unpack_from(framing)[1], _ID.size
    if framing[:1] == b"\1" and len(framing) >= _GUID_SIZE:
        return str(UUID(bytes=framing[1:_GUID_SIZE])), _GUID_SIZE
    return None, 0


def _read(record: Record, stream: BytesIO, writer: Any, reader: Any) -> Any:
    try:
        datum = fastavro.schemaless_reader(stream, writer, reader)
    except _BROKEN as error:
        why = f"its value does not suit schema {_name_of(writer)}, {_reason(error)}"
        raise envelope.unreadable(record, why) from None
    if stream.read(1):
        raise envelope.unreadable(record, f"bytes are left after its {_name_of(writer)}")
    return datum


def _reason(error: Exception) -> str:
    """What is wrong with a value: the first fields that pydantic names, or the error itself."""
    if not isinstance(error, pydantic.ValidationError):
        return f"{type(error).__name__}: {error}"
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:3]
    return "; ".join(f"field {'.'.join(map(str, one['loc'])) or '(all)'}: {one['msg']}" for one in faults)
