"""Changing the data of a dead letter's event."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from choreo.errors import ChoreoError, ConfigurationError, DecodeError, SchemaNotCachedError, SchemaNotFoundError
from choreo.log.port import Record
from choreo.wire import Codec, Registry
from choreo.wire.codec import GUID_HEADER
from choreo.wire.plain import as_json


async def data_of(codec: Codec, record: Record) -> tuple[str, Any, str]:
    """The type name and the data of a record, as JSON has it; or neither, and why not."""
    while True:
        try:
            name, data = codec.decode_any(record)
            return name, as_json(data), ""
        except SchemaNotCachedError as missing:
            try:
                await codec.load(missing.schema_id)
            except (DecodeError, SchemaNotFoundError) as error:
                return "", None, str(error)
        except DecodeError as error:
            return "", None, str(error)


def with_fields(data: Any, assignments: Sequence[str]) -> Any:
    """A copy of the data with `field=value` set: the value is JSON, else text; `a.b.0` leads into objects and lists.

    Raises:
        ConfigurationError: an assignment is no such thing, or leads nowhere.
    """
    data = copy.deepcopy(data)
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        *parents, last = path.split(".")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        try:
            if not last or "=" not in assignment:
                raise LookupError
            target = data
            for part in parents:
                target = target[_step(target, part)]
            target[_step(target, last)] = value
        except (LookupError, TypeError, ValueError):
            remedy = "write field=value, where parent.field leads into objects and list.0 into lists"
            raise ConfigurationError(f"{assignment!r} cannot be set", remedy=remedy) from None
    return data


def _step(target: Any, part: str) -> int | str:
    return int(part) if isinstance(target, list) else part


async def edited(record: Record, data: Any, type_name: str, codec: Codec, registry: Registry) -> Record:
    """The record with other data, by its writer's schema; if that cannot be had, by the newest one of the event's type.

    Raises:
        EncodeError: the schema does not allow the data.
        ChoreoError: there is no schema.
    """
    _, _, why = await data_of(codec, record)
    if why:
        subject = f"{record.topic}-{type_name}"
        if not type_name or not (versions := await registry.versions(subject)):
            what = f"the registry has no schema {subject!r} to write the data with"
            raise ChoreoError(what, why=f"its own cannot be used: {why}")
        schema_id = await registry.register(subject, versions[-1])
        await codec.load(schema_id)
        address = ("ce_dataschema", registry.address(schema_id).encode())
        headers = [header for header in record.headers if header[0] not in {address[0], GUID_HEADER, "content-type"}]
        headers += [("content-type", b"application/avro"), address]
        record = record._replace(value=struct.pack(">bI", 0, schema_id), headers=headers)
    return codec.encode_any(record, data)


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """What changed: the field's path, what it was and what it is, as JSON; empty where it is absent."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{path}.{name}" if path else name
            if name in old and name in new:
                yield from differences(old[name], new[name], inner)
            else:
                was, is_ = (json.dumps(one[name]) if name in one else "" for one in (old, new))
                yield inner, was, is_
    elif old != new:
        yield path, json.dumps(old), json.dumps(new)
