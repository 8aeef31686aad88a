"""How Python values become Avro data and back, type by type.

fastavro converts silently where it can (1.5 becomes the long 1, None the boolean false, a naive datetime local
time), so every value is checked before it is written. Checks that depend on types alone are remembered per
combination of types and cost one set lookup per record from then on.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, NamedTuple, NoReturn
from uuid import UUID

import fastavro

from choreo.errors import DeclarationError, EncodeError

DURATION = "choreo.duration-micros"
"""Logical type of a timedelta. Avro's `duration` has months and no sign; others read this one as a plain long."""
MODEL = "__model__"
"""Datum key that says which record this is, where a union has several; pydantic allows no such field."""
PRECISION, SCALE = 38, 9
"""Decimal digits in all, and after the point, where a field declares none."""
CONSTRUCTOR = "build events by their constructor, which validates"

Convert = Callable[[Any], Any]
NONE = type(None)
_MICROSECOND = dt.timedelta(microseconds=1)
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_READ_AS = {"record": dict, "map": dict, "array": list, "string": str}

fastavro.write.LOGICAL_WRITERS[f"long-{DURATION}"] = lambda value, _schema: value // _MICROSECOND
fastavro.read.LOGICAL_READERS[f"long-{DURATION}"] = lambda micros, *_schemas: dt.timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class WireType:
    """What one annotation means in Avro.

    Attributes:
        avro: its schema; every named type is written out where it is used.
        accepts: the classes its values may have.
        write: makes the datum of a value; None if a value of an accepted class is its own datum.
        read: makes pydantic's input of a datum; None if the datum will do.
    """

    avro: Any
    accepts: tuple[type, ...]
    write: Convert | None = None
    read: Convert | None = None


PLAIN: dict[Any, WireType] = {
    str: WireType("string", (str,)),
    int: WireType("long", (int,)),
    float: WireType("double", (float,)),
    bool: WireType("boolean", (bool,)),
    bytes: WireType("bytes", (bytes,)),
    dt.date: WireType({"type": "int", "logicalType": "date"}, (dt.date,)),
    UUID: WireType({"type": "string", "logicalType": "uuid"}, (UUID,)),
    dt.timedelta: WireType({"type": "long", "logicalType": DURATION}, (dt.timedelta,)),
}


class Place(NamedTuple):
    """A field of an event, for messages: `lines[].price` of OrderPlaced."""

    event: str
    path: str = ""

    def field(self, name: str) -> Place:
        """A field of the record here."""
        return Place(self.event, f"{self.path}.{name}" if self.path else name)

    def inside(self, brackets: str) -> Place:
        """The items (`[]`) or values (`{}`) here."""
        return Place(self.event, self.path + brackets)

    def fail(self, what: str, remedy: str) -> NoReturn:
        """The declaration is wrong."""
        raise DeclarationError(f"event {self.event}: field {self.path} {what}", remedy=remedy)

    def refuse(self, what: str, remedy: str = CONSTRUCTOR) -> NoReturn:
        """A value is wrong."""
        where = f"field {self.path} {what}" if self.path else f"it {what}"
        raise EncodeError(f"event {self.event} cannot be written: {where}", remedy=remedy)

    def refuse_type(self, value: Any, accepts: tuple[type, ...]) -> NoReturn:
        """A value is of a wrong type."""
        self.refuse(f"is a {type(value).__name__}, not a {names(accepts)}")


def fits(cls: type, accepts: tuple[type, ...]) -> bool:
    """Whether a value of this class is one of those; True is no int here, and a datetime no date."""
    return cls in accepts or (issubclass(cls, accepts) and not issubclass(cls, (bool, dt.datetime)))


def names(classes: tuple[type, ...]) -> str:
    """What messages call some classes."""
    return " or ".join("None" if cls is NONE else cls.__name__ for cls in classes)


def branch_of(avro: Any) -> str:
    """What a union calls one of its branches."""
    return avro if isinstance(avro, str) else str(avro.get("name", avro["type"]))


def record_writer(model: type, fields: dict[str, WireType], place: Place) -> Convert:
    """Writes a model as the dict of its fields."""
    special = [(name, wire.write) for name, wire in fields.items() if wire.write]
    known: set[tuple[type, ...]] = set()

    def check(data: dict[str, Any]) -> None:
        for name in sorted(data.keys() ^ fields.keys()):
            place.field(name).refuse("is unknown" if name in data else "is missing")
        for name, wire in fields.items():
            if not wire.write and not fits(type(data[name]), wire.accepts):
                place.field(name).refuse_type(data[name], wire.accepts)

    def write(value: Any) -> Any:
        if type(value) is not model:  # a subclass may have more fields, and they would be lost
            place.refuse_type(value, (model,))
        data = value.__dict__
        shape = tuple(map(type, data.values()))
        if shape not in known:
            check(data)
            known.add(shape)
        if special:
            data = data.copy()
            for name, convert in special:
                data[name] = convert(data[name])
        return data

    return write


def record_reader(fields: dict[str, WireType], *, marked: bool) -> Convert | None:
    """Converts the fields that need it, and takes the mark away."""
    reads = [(name, wire.read) for name, wire in fields.items() if wire.read]

    def read(datum: Any) -> Any:
        if type(datum) is dict:  # else it is a field's default, which is pydantic's own already
            datum.pop(MODEL, None)
            for name, convert in reads:
                datum[name] = convert(datum[name])
        return datum

    return read if reads or marked else None


def array(item: WireType, kinds: tuple[type, ...], place: Place) -> WireType:
    """A list, tuple or set. Sets have no stable order, but a re-run must publish the same bytes: they are sorted."""
    convert, each = _checked(item, place.inside("[]")), item.read
    ordered = not {set, frozenset} & set(kinds)

    def write(value: Any) -> Any:
        if type(value) not in kinds and not isinstance(value, kinds):
            place.refuse_type(value, kinds)
        return [*map(convert, value if ordered else sorted(value, key=repr))]

    read = (lambda datum: [each(one) for one in datum]) if each else None
    return WireType({"type": "array", "items": item.avro}, kinds, write, read)


def mapping(item: WireType, place: Place) -> WireType:
    """A dict with str keys."""
    convert, each = _checked(item, place.inside("{}")), item.read

    def write(value: Any) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            place.refuse("is no dict with str keys")
        return {key: convert(one) for key, one in value.items()}

    read = (lambda datum: {key: each(one) for key, one in datum.items()}) if each else None
    return WireType({"type": "map", "values": item.avro}, (dict,), write, read)


def union(branches: Sequence[WireType], place: Place, *, nullable: bool) -> WireType:
    """One of several types; whatever is not null is written with the name of its branch."""
    nulls = [NONE] if nullable else []
    avro = [*("null" for _ in nulls), *(wire.avro for wire in branches)]
    accepts = (*nulls, *(cls for wire in branches for cls in wire.accepts))
    if len(branches) == 1 and isinstance(branches[0].avro, str):
        return WireType(avro, accepts)
    looks = [_look(wire.avro) for wire in branches]
    records = looks.count("record")
    if len(set(looks)) < len(looks) - max(records - 1, 0) or ("map" in looks and records):
        place.fail("is a union of types that look alike in a record", "wrap each in a model of its own")
    ways = {cls: (branch_of(wire.avro), wire.write) for wire in branches for cls in wire.accepts}

    def write(value: Any) -> Any:
        if value is None and nullable:
            return None
        way = ways.get(type(value)) or next((ways[cls] for cls in ways if fits(type(value), (cls,))), None)
        if way is None:
            place.refuse_type(value, accepts)
        branch, convert = way
        return (branch, convert(value) if convert else value)

    models: dict[Any, Any] = {wire.accepts[0]: wire.read for wire in branches}
    plain: dict[Any, Any] = {_READ_AS[look]: w.read for w, look in zip(branches, looks, strict=True) if w.read}

    def read(datum: Any) -> Any:
        if type(datum) is dict and MODEL in datum:
            model = datum[MODEL]
            return model.model_validate(models[model](datum), strict=False)
        convert = plain.get(type(datum))
        return convert(datum) if convert else datum

    return WireType(avro, accepts, write, read if plain else None)


def clock(kind: type[dt.datetime | dt.time], place: Place) -> WireType:
    """An instant needs its zone; a time of day may have none, for a record could not keep it."""
    aware = kind is dt.datetime
    what = f"is a {kind.__name__} {'without' if aware else 'with'} a time zone"
    remedy = "give it a zone: datetime.now(tz=UTC)" if aware else "use a datetime, or drop its zone"

    def write(value: Any) -> Any:
        if not isinstance(value, kind):
            place.refuse_type(value, (kind,))
        if (value.tzinfo is not None) is not aware:
            place.refuse(what, remedy)
        return value

    return WireType({"type": "long", "logicalType": "timestamp-micros" if aware else "time-micros"}, (kind,), write)


def decimal(digits: int | None, places: int | None, place: Place) -> WireType:
    """An exact number. Without declared places, all the declared digits may stand before the point."""
    scale = SCALE if places is None else places
    precision = PRECISION if digits is None else digits + (SCALE if places is None else 0)
    unit, context = Decimal(1).scaleb(-scale), Context(prec=precision, traps=[Inexact, InvalidOperation])

    def write(value: Any) -> Any:
        if not isinstance(value, Decimal):
            place.refuse_type(value, (Decimal,))
        if value.is_nan():
            place.refuse("is no number")
        try:
            return value.quantize(unit, context=context)
        except (Inexact, InvalidOperation):
            remedy = "round it where it is made, or declare Field(max_digits=..., decimal_places=...)"
            place.refuse(f"has more digits than decimal({precision}, {scale}) holds", remedy)

    avro = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    return WireType(avro, (Decimal,), write)


def enumeration(kind: type[enum.Enum], name: str, doc: dict[str, str], place: Place) -> WireType:
    """An Enum, by its values if they are Avro names, else by its members' names."""
    by_value = all(isinstance(member.value, str) and _SYMBOL.match(member.value) for member in kind)
    symbols = {member: member.value if by_value else member.name for member in kind}
    avro: dict[str, Any] = {"type": "enum", "name": name, **doc, "symbols": list(symbols.values())}
    with suppress(ValueError):  # an Enum says with `_missing_` which member stands for unknown values
        avro["default"] = symbols[kind("choreo.unknown")]
    if by_value and issubclass(kind, str):
        return WireType(avro, (kind,))
    members = {symbol: member for member, symbol in symbols.items()}

    def write(value: Any) -> Any:
        if type(value) is not kind:
            place.refuse_type(value, (kind,))
        return symbols[value]

    return WireType(avro, (kind,), write, None if by_value else lambda symbol: members.get(symbol, symbol))


def literal(symbols: tuple[Any, ...], name: str, place: Place) -> WireType:
    """A Literal of strings."""
    if not all(isinstance(symbol, str) and _SYMBOL.match(symbol) for symbol in symbols):
        place.fail("is a Literal that is no list of Avro names", "use an Enum: its member names are written")

    def write(value: Any) -> Any:
        if value not in symbols:
            place.refuse(f"is none of {', '.join(symbols)}", "use one of them")
        return value

    return WireType({"type": "enum", "name": name, "symbols": list(symbols)}, (str,), write)


def _checked(wire: WireType, place: Place) -> Convert:
    def write(value: Any) -> Any:
        if type(value) not in wire.accepts and not fits(type(value), wire.accepts):
            place.refuse_type(value, wire.accepts)
        return value

    return wire.write or write


def _look(avro: Any) -> str:
    """How a datum looks when it is read: two branches of a union that look the same could not be told apart."""
    kind = avro if isinstance(avro, str) else str(avro["type"])
    return "string" if kind == "enum" else kind
