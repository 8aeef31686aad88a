"""Avro data as JSON, for people to read and to change: texts for times and decimals, base64 for bytes."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import fastavro
import pydantic
from pydantic_core import CoreSchema, SchemaValidator, to_json
from pydantic_core import core_schema as core

from choreo.errors import EncodeError
from choreo.wire.datum import DURATION

_CONFIG = core.CoreConfig(val_json_bytes="base64", strict=True)
_TYPES: dict[str, CoreSchema] = {
    "null": core.none_schema(),
    "boolean": core.bool_schema(),
    "int": core.int_schema(ge=-(2**31), le=2**31 - 1),
    "long": core.int_schema(ge=-(2**63), le=2**63 - 1),
    **dict.fromkeys(("float", "double"), core.float_schema(strict=False)),  # "NaN" is a text in JSON
    "bytes": core.bytes_schema(),
    "string": core.str_schema(),
    "uuid": core.uuid_schema(),
    "date": core.date_schema(),
    **dict.fromkeys(("time-millis", "time-micros"), core.time_schema()),
    **dict.fromkeys(("timestamp-millis", "timestamp-micros"), core.datetime_schema(tz_constraint="aware")),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros"), core.datetime_schema(tz_constraint="naive")),
    DURATION: core.timedelta_schema(),
}


def as_json(data: Any) -> Any:
    """Decoded Avro data as JSON has it."""
    return json.loads(to_json(data, bytes_mode="base64", inf_nan_mode="strings"))


def encoded(parsed: Any, data: Any) -> bytes:
    """The Avro bytes of data as JSON has it; `parsed` is a schema as fastavro parses it.

    Raises:
        EncodeError: the schema does not allow it; the fields are named.
    """
    named: dict[str, CoreSchema] = {}
    root = _checked(parsed, named)
    schema = core.definitions_schema(root, [*named.values()]) if named else root
    stream = BytesIO()
    try:
        datum = SchemaValidator(schema, _CONFIG).validate_json(json.dumps(data))
        fastavro.schemaless_writer(stream, parsed, datum)
    except (ValueError, TypeError) as error:
        why = str(error)
        if isinstance(error, pydantic.ValidationError):
            faults = error.errors(include_url=False, include_input=False, include_context=False)[:3]
            why = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'all'}: {fault['msg']}" for fault in faults)
        raise EncodeError("the data does not suit the schema", why=why) from None
    return stream.getvalue()


def _checked(avro: Any, named: dict[str, CoreSchema]) -> CoreSchema:
    """What checks JSON against an Avro type; types that have a name go to `named`."""
    if isinstance(avro, list):
        return core.union_schema([_checked(branch, named) for branch in avro])
    if isinstance(avro, str):
        return _TYPES.get(avro) or core.definition_reference_schema(avro)
    logical = avro.get("logicalType")
    if logical == "decimal":
        return core.decimal_schema(max_digits=avro["precision"], decimal_places=avro.get("scale", 0))
    if "name" not in avro:
        return _TYPES.get(logical) or _unnamed(avro, named)
    if avro["name"] not in named:
        named[avro["name"]] = core.none_schema()  # until it is known: a type may hold itself
        schema: Any = _named(avro, named)
        named[avro["name"]] = {**schema, "ref": avro["name"]}
    return core.definition_reference_schema(avro["name"])


def _unnamed(avro: Any, named: dict[str, CoreSchema]) -> CoreSchema:
    if avro["type"] == "array":
        return core.list_schema(_checked(avro["items"], named))
    if avro["type"] == "map":
        return core.dict_schema(core.str_schema(), _checked(avro["values"], named))
    return _checked(avro["type"], named)


def _named(avro: Any, named: dict[str, CoreSchema]) -> CoreSchema:
    if avro["type"] == "enum":
        return core.literal_schema(avro["symbols"])
    if avro["type"] == "fixed":
        return core.bytes_schema(min_length=avro["size"], max_length=avro["size"])
    fields = {
        field["name"]: core.typed_dict_field(_checked(field["type"], named), required="default" not in field)
        for field in avro["fields"]
    }
    return core.typed_dict_schema(fields, extra_behavior="forbid", config=_CONFIG)
