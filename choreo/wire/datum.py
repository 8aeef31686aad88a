"""How Python values become Avro data and back, type by type.

fastavro converts silently where it can (1.5 becomes the long 1, None the boolean false, a naive datetime local time), so
pydantic-core checks every value strictly before it is written, also those that went past validation.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import fastavro
import pydantic
from pydantic_core import CoreSchema
from pydantic_core import core_schema as core

DURATION = "choreo.duration-micros"
"""Logical type of a timedelta. Avro's `duration` has months and no sign; others read this one as a plain long."""

Convert = Callable[[Any], Any]
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MICROSECOND = dt.timedelta(microseconds=1)
_READ_AS: dict[str, type] = {"record": dict, "map": dict, "array": list, "enum": str, "bytes": bytes}

fastavro.write.LOGICAL_WRITERS[f"long-{DURATION}"] = lambda value, _schema: value // _MICROSECOND
fastavro.read.LOGICAL_READERS[f"long-{DURATION}"] = lambda micros, *_schemas: dt.timedelta(microseconds=micros)


class WireType(NamedTuple):
    """What one annotation means in Avro: its schema, every named type written out where it is used.

    `write` checks a value and makes its datum, `read` makes pydantic's input of a datum, or of a field's default; None
    if that will do as it is.
    """

    avro: Any
    write: CoreSchema
    read: Convert | None = None


def _logical(kind: str, logical: str) -> dict[str, str]:
    return {"type": kind, "logicalType": logical}


_MICROS = _logical("long", "timestamp-micros")
PLAIN: dict[Any, WireType] = {
    str: WireType("string", core.str_schema(strict=True)),
    int: WireType("long", core.int_schema(strict=True, ge=-(2**63), le=2**63 - 1)),
    float: WireType("double", core.is_instance_schema(float)),  # a strict float takes an int, and may round it
    bool: WireType("boolean", core.bool_schema(strict=True)),
    bytes: WireType("bytes", core.bytes_schema(strict=True)),
    UUID: WireType(_logical("string", "uuid"), core.uuid_schema(strict=True)),
    dt.date: WireType(_logical("int", "date"), core.date_schema(strict=True)),
    dt.time: WireType(_logical("long", "time-micros"), core.time_schema(strict=True, tz_constraint="naive")),
    dt.datetime: WireType(_MICROS, core.datetime_schema(strict=True, tz_constraint="aware")),
    dt.timedelta: WireType(_logical("long", DURATION), core.timedelta_schema(strict=True)),
}


def record(model: type[pydantic.BaseModel], avro: dict[str, Any], fields: dict[str, WireType]) -> WireType:
    """A model, written as the dict of its fields."""
    reads = [(name, wire.read) for name, wire in fields.items() if wire.read]

    def opened(value: Any) -> Any:
        if type(value) is not model or value.__pydantic_extra__:
            raise ValueError(f"{type(value).__name__} is not {model.__name__} alone, and other fields would be lost")
        return value.__dict__

    def read(datum: Any) -> Any:
        if type(datum) is dict:
            for name, convert in reads:
                datum[name] = convert(datum[name])
        return datum

    checks = {name: core.typed_dict_field(wire.write) for name, wire in fields.items()}
    write = core.no_info_before_validator_function(opened, core.typed_dict_schema(checks, extra_behavior="forbid"))
    return WireType(avro, write, read if reads else None)


def array(item: WireType, kind: type) -> WireType:
    """A list, tuple or set. Sets have no stable order, but a re-run must publish the same bytes: they are sorted."""
    each = item.read

    def listed(value: Any, checked: Convert) -> Any:
        data = checked([*value])
        return data if kind is tuple else sorted(data, key=repr)

    write: CoreSchema = core.list_schema(item.write, strict=True)
    if kind is not list:
        write = core.chain_schema([core.is_instance_schema(kind), core.no_info_wrap_validator_function(listed, write)])
    read = (lambda datum: [each(one) for one in datum]) if each else None
    return WireType({"type": "array", "items": item.avro}, write, read)


def mapping(item: WireType) -> WireType:
    """A dict with str keys."""
    each = item.read
    read = (lambda datum: {key: each(one) for key, one in datum.items()}) if each else None
    write = core.dict_schema(core.str_schema(strict=True), item.write, strict=True)
    return WireType({"type": "map", "values": item.avro}, write, read)


def union(branches: Sequence[WireType], *, nullable: bool) -> WireType:
    """One of several types; whatever is not null is written with the name of its branch."""
    # Readers take the first branch that a number may be promoted to, so the narrow ones come first.
    branches = sorted(branches, key=lambda wire: {"int": 0, "double": 2}.get(look_of(wire.avro), 1))
    reads: dict[type, Convert] = {_READ_AS[wire.avro["type"]]: wire.read for wire in branches if wire.read}

    def read(datum: Any) -> Any:
        convert = reads.get(type(datum))
        return convert(datum) if convert else datum

    names = [branch_of(wire.avro) for wire in branches]
    tags = [core.no_info_plain_validator_function(partial(_tagged, name)) for name in names]
    tagged = [
        (core.chain_schema([wire.write, tag]), name) for wire, tag, name in zip(branches, tags, names, strict=True)
    ]
    write: CoreSchema = core.union_schema([*tagged], mode="left_to_right")
    avro = [*(["null"] if nullable else []), *(wire.avro for wire in branches)]
    return WireType(avro, core.nullable_schema(write) if nullable else write, read if reads else None)


def decimal(digits: int | None, places: int | None) -> WireType:
    """An exact number, of 38 digits with 9 places; declared digits without places may all stand before the point."""
    scale = 9 if places is None else places
    precision = 38 if digits is None else digits + (9 if places is None else 0)
    unit, context = Decimal(1).scaleb(-scale), Context(prec=precision, traps=[Inexact, InvalidOperation])

    def write(value: Any) -> Any:
        if not isinstance(value, Decimal) or value.is_nan():
            raise ValueError(f"{value!r} is no {'number' if isinstance(value, Decimal) else 'Decimal'}")
        try:
            number = int(value.quantize(unit, context=context).scaleb(scale, context))
        except (Inexact, InvalidOperation):
            raise ValueError(f"{value} has more digits than decimal({precision}, {scale}) holds; round it") from None
        return number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)

    def read(datum: Any) -> Any:
        """Only of the class's very own schema the bytes come as they are; else fastavro has made a Decimal of them."""
        return (
            Decimal(int.from_bytes(datum, "big", signed=True)).scaleb(-scale, context)
            if type(datum) is bytes
            else datum
        )

    avro = {**_logical("bytes", "decimal"), "precision": precision, "scale": scale}
    return WireType(avro, core.no_info_plain_validator_function(write), read)


def enumeration(kind: type[enum.Enum], name: str) -> WireType:
    """An Enum, by its values if they are Avro names, else by its members' names."""
    by_value = all(isinstance(member.value, str) and SYMBOL.match(member.value) for member in kind)
    symbols = {member: member.value if by_value else member.name for member in kind}
    members = {symbol: member for member, symbol in symbols.items()}
    avro: dict[str, Any] = {"type": "enum", "name": name, "symbols": list(members)}
    with suppress(ValueError):  # an Enum says with `_missing_` which member stands for unknown values
        avro["default"] = symbols[kind("choreo.unknown")]
    write = core.no_info_after_validator_function(symbols.__getitem__, core.is_instance_schema(kind))
    return WireType(avro, write, None if by_value else lambda symbol: members.get(symbol, symbol))


def literal(symbols: Sequence[str], name: str) -> WireType:
    """A Literal of strings."""
    return WireType({"type": "enum", "name": name, "symbols": list(symbols)}, core.literal_schema(list(symbols)))


def look_of(avro: Any) -> str:
    """How a datum may look when it is read: branches of a union that look the same could not be told apart."""
    look = avro if isinstance(avro, str) else str(avro["type"])
    return "string" if look in {"enum", "bytes"} else look


def branch_of(avro: Any) -> str:
    """What a union calls one of its branches."""
    return avro if isinstance(avro, str) else str(avro.get("name", avro["type"]))


def _tagged(branch: str, datum: Any) -> tuple[str, Any]:
    return branch, datum
