"""Changing the data of a dead letter's event."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Sequence
from typing import Any

from choreo.errors import ChoreoError, ConfigurationError, DecodeError, SchemaNotCachedError, SchemaNotFoundError
from choreo.log.port import Record
from choreo.wire import Codec, Registry
from choreo.wire.codec import GUID_HEADER
from choreo.wire.plain import as_json


async def data_of(codec: Codec, record: Record) -> tuple[Any, str]:
    """The data of a record as JSON has it; or None, and why not."""
    try:
        try:
            _, data = codec.decode_any(record)
        except SchemaNotCachedError as missing:
            await codec.load(missing.schema_id)
            _, data = codec.decode_any(record)
        return as_json(data), ""
    except (DecodeError, SchemaNotFoundError) as error:
        return None, str(error)


def with_fields(data: Any, assignments: Sequence[str]) -> Any:
    """A copy of the data with `field=value` set: the value is JSON, else text; `a.b.0` leads into objects and lists.

    Raises:
        ConfigurationError: an assignment is no such thing, or leads nowhere.
    """
    data = copy.deepcopy(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        try:
            *steps, last = path.split(".") if path and equals else []
            target = data
            for step in steps:
                target = target[int(step) if isinstance(target, list) else step]
            target[int(last) if isinstance(target, list) else last] = value
        except (LookupError, TypeError, ValueError):
            remedy = "write field=value, where parent.field leads into objects and list.0 into lists"
            raise ConfigurationError(f"{assignment!r} cannot be set", remedy=remedy) from None
    return data


async def edited(record: Record, data: Any, type_name: str, codec: Codec, registry: Registry) -> Record:
    """The record with other data, by its writer's schema; if that cannot be had, by the newest one of the event's type.

    Raises:
        EncodeError: the schema does not allow the data.
        ChoreoError: there is no schema.
    """
    _, why = await data_of(codec, record)
    if why:
        subject = f"{record.topic}-{type_name}"
        if not type_name or not (versions := await registry.versions(subject)):
            what = f"the registry has no schema {subject!r} to write the data with"
            raise ChoreoError(what, why=f"its own cannot be used: {why}")
        schema_id = await registry.register(subject, versions[-1])
        await codec.load(schema_id)
        headers = [one for one in record.headers if one[0] not in {"ce_dataschema", GUID_HEADER, "content-type"}]
        headers += [("content-type", b"application/avro"), ("ce_dataschema", registry.address(schema_id).encode())]
        record = record._replace(value=struct.pack(">bI", 0, schema_id), headers=headers)
    return codec.encode_any(record, data)
