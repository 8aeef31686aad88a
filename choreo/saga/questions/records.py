"""One record of a saga as it lies in the log: headers, data, and the schema that it was written with."""

from __future__ import annotations

from typing import Any, NamedTuple

from choreo.dlq.edit import data_of
from choreo.dlq.letters import Place
from choreo.errors import DecodeError, WireError
from choreo.log.port import Log, Record
from choreo.log.reader import record_at
from choreo.wire import Codec, Registry
from choreo.wire.avro import identity
from choreo.wire.codec import written_with

_BYTES = 4096
"""So much is shown of a value that cannot be decoded."""


class Header(NamedTuple):
    """A header; what is no text in it is written with escapes."""

    name: str
    value: str


class Told(NamedTuple):
    """What a record says.

    Attributes:
        written_ms: the record's time.
        headers: in their order; a name may occur twice.
        schema: the name of the schema it was written with; empty if it names none.
        version: which version of its subject that is; None if the registry does not say.
        data: as JSON has it; None if it cannot be decoded.
        undecodable: why it cannot be; empty if it can.
        hex: the value's first bytes, if it cannot be decoded.
        gone: whether the log has it no more: then nothing else is known.
    """

    place: Place
    written_ms: int = 0
    key: str | None = None
    headers: tuple[Header, ...] = ()
    schema_id: int | str | None = None
    schema: str = ""
    version: int | None = None
    data: Any = None
    undecodable: str = ""
    hex: str = ""
    gone: bool = False


async def tell(log: Log, registry: Registry, place: Place) -> Told:
    """What the record at a place says."""
    record = await record_at(log, place.of, place.offset)
    if record is None:
        return Told(place, gone=True)
    codec = Codec(registry)
    data, why = await data_of(codec, record)
    schema_id, name, version = await _schema(registry, codec, record)
    value = record.value or b""
    return Told(
        place=place,
        written_ms=record.timestamp,
        key=None if record.key is None else _text(record.key),
        headers=tuple(Header(name, _text(value)) for name, value in record.headers),
        schema_id=schema_id,
        schema=name,
        version=version,
        data=data,
        undecodable=why,
        hex=value[:_BYTES].hex(" ") if why else "",
    )


async def _schema(registry: Registry, codec: Codec, record: Record) -> tuple[int | str | None, str, int | None]:
    """The id, the name and the version of the schema that a record was written with."""
    try:
        schema_id = written_with(record)
        if schema_id is None:
            return None, "", None
        schema = await registry.schema(schema_id)
        name = str(schema.get("name", "")) if isinstance(schema, dict) else ""
        versions = await registry.versions(f"{record.topic}-{codec.metadata(record).type_name or name}")
    except (DecodeError, WireError):
        return None, "", None
    same = (number for number, version in enumerate(versions, 1) if identity(version) == identity(schema))
    return schema_id, name, next(same, None)


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
