"""From an event class to Avro: its schema, how an event becomes an Avro datum, and how a datum becomes an event.

fastavro converts silently where it can (1.5 becomes the long 1, None the boolean false, a naive datetime local
time), so every value is checked before it is written. Checks that depend on types alone are remembered per
combination of types and cost one set lookup per record from then on.
"""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import io
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from typing import Annotated, Any, Literal, NewType, NoReturn, Union, get_args, get_origin
from uuid import UUID

import fastavro
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from choreo.errors import DeclarationError, EncodeError
from choreo.events import Event
from choreo.wire.avro import named_once, without

DURATION = "choreo.duration-micros"
"""Logical type of a timedelta. Avro's `duration` has months and no sign; others read this one as a plain long."""
MODEL = "__model__"
"""Datum key that says which record this is, where a union has several; pydantic allows no such field."""
PRECISION, SCALE = 38, 9
"""Decimal digits in all, and after the point, where a field declares none."""

Convert = Callable[[Any], Any]
_MICROSECOND = dt.timedelta(microseconds=1)
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NONE = type(None)
_ARRAYS: dict[Any, tuple[type, ...]] = {
    list: (list,),
    tuple: (tuple,),
    set: (set,),
    frozenset: (frozenset,),
    Sequence: (list, tuple),
}
_MEANT: dict[Any, type] = {
    pydantic.AwareDatetime: dt.datetime,
    pydantic.PastDatetime: dt.datetime,
    pydantic.FutureDatetime: dt.datetime,
    pydantic.PastDate: dt.date,
    pydantic.FutureDate: dt.date,
}

_CONSTANT = (list, tuple, dict, set, frozenset, pydantic.BaseModel)
"""Default factories that make the same value each time; of others a schema can know nothing."""
_SEEN_AS = {"record": dict, "map": dict, "array": list, "string": str}

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


@dataclass(frozen=True, slots=True)
class Plan:
    """How one event class goes over the wire.

    Attributes:
        schema: its Avro schema.
        write: the Avro datum of an event; raises EncodeError naming the field.
        read: pydantic's input of a datum; None if the datum will do.
        models: the class of each record by full name.
        ambiguous: whether data is to be read with `MODEL` in its records, because some union has several.
    """

    schema: dict[str, Any]
    write: Convert
    read: Convert | None
    models: dict[str, type[pydantic.BaseModel]]
    ambiguous: bool


_PLAIN: dict[Any, WireType] = {
    str: WireType("string", (str,)),
    int: WireType("long", (int,)),
    float: WireType("double", (float,)),
    bool: WireType("boolean", (bool,)),
    bytes: WireType("bytes", (bytes,)),
    dt.date: WireType({"type": "int", "logicalType": "date"}, (dt.date,)),
    UUID: WireType({"type": "string", "logicalType": "uuid"}, (UUID,)),
    dt.timedelta: WireType({"type": "long", "logicalType": DURATION}, (dt.timedelta,)),
}


@cache
def plan_of(event_class: type[Event]) -> Plan:
    """The plan of an event class.

    Raises:
        DeclarationError: a field has a type or default that Avro cannot hold.
    """
    walk = _Walk(event_class)
    root = walk.root()
    if walk.ambiguous:
        walk = _Walk(event_class, marked=True)
        root = walk.root()
    if root.write is None:  # a record always has its writer
        raise AssertionError
    return Plan(named_once(root.avro, set()), root.write, root.read, walk.models, walk.ambiguous)


def schema_of(event_class: type[Event]) -> dict[str, Any]:
    """The Avro schema of an event class: a record named as the event's type."""
    return plan_of(event_class).schema


def default_of(info: FieldInfo) -> Any:
    """A field's default as Avro knows defaults: a constant; PydanticUndefined if it has none."""
    if isinstance(info.default_factory, type) and issubclass(info.default_factory, _CONSTANT):
        return info.default_factory()
    return info.default


class _Walk:
    """One walk over the annotations of an event class; `marked` says that every datum carries `MODEL`."""

    def __init__(self, event: type[Event], *, marked: bool = False) -> None:
        self._event, self._marked = event, marked
        self._namespace, _, self._name = event.contract.type_name.rpartition(".")
        self._named: dict[str, Any] = {}
        self._open: list[type[pydantic.BaseModel]] = []
        self.models: dict[str, type[pydantic.BaseModel]] = {}
        self.ambiguous = False

    def root(self) -> WireType:
        return self._record(self._event, "")

    def _of(self, annotation: Any, metadata: Sequence[Any], path: str) -> WireType:
        annotation, metadata = _unwrapped(annotation, metadata)
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in {Union, types.UnionType}:
            return self._union(args, metadata, path)
        if origin is Literal:
            return self._literal(args, path)
        if origin in _ARRAYS and (origin is not tuple or args[1:] == (...,)):
            return self._array(self._of(args[0], (), f"{path}[]"), _ARRAYS[origin], path)
        if origin in {dict, Mapping} and _unwrapped(args[0], ())[0] is str:
            return self._map(self._of(args[1], (), f"{path}{{}}"), path)
        return self._of_class(annotation, metadata, path)

    def _of_class(self, annotation: Any, metadata: Sequence[Any], path: str) -> WireType:
        if annotation in _PLAIN:
            return _PLAIN[annotation]
        if annotation in {dt.datetime, dt.time}:
            return self._clock(annotation, path)
        if annotation is Decimal:
            return self._decimal(metadata, path)
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            return self._record(annotation, path)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and not issubclass(annotation, enum.Flag):
            return self._enum(annotation, path)
        shown = annotation.__qualname__ if isinstance(annotation, type) else annotation
        return self._fail(
            path, f"has the type {shown}, which no Avro type holds", "docs/schemas.md lists those that do"
        )

    def _record(self, model: type[pydantic.BaseModel], path: str) -> WireType:
        if model in self._open:
            self._fail(path, f"has {model.__name__} inside {model.__name__}", "carry a flat list of nodes with ids")
        name = self._define(model.__name__ if path else self._name, model, path)
        self._open.append(model)
        fields = {
            field: self._field(info, field, f"{path}.{field}" if path else field)
            for field, info in model.model_fields.items()
        }
        avro: dict[str, Any] = {"type": "record", "name": name, **_doc(model.__doc__)}
        avro["fields"] = [
            self._declared(info, field, fields[field], f"{path}.{field}" if path else field)
            for field, info in model.model_fields.items()
        ]
        self._open.pop()
        self.models[name] = model
        reads = [(field, wire.read) for field, wire in fields.items() if wire.read]
        read = _record_reader(reads) if reads or self._marked else None
        return WireType(avro, (model,), self._record_writer(model, fields, path), read)

    def _field(self, info: FieldInfo, name: str, path: str) -> WireType:
        if info.exclude:
            self._fail(path, "is declared exclude=True, but a record carries every field", "drop exclude or the field")
        config = self._open[-1].model_config
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        if info.validation_alias is not None and name not in _accepted(info) and not by_name:
            remedy = f"use validation_alias=AliasChoices({name!r}, ...)"
            self._fail(path, "accepts only its alias, but a record carries the field's own name", remedy)
        return self._of(info.annotation, info.metadata, path)

    def _declared(self, info: FieldInfo, name: str, wire: WireType, path: str) -> dict[str, Any]:
        field: dict[str, Any] = {"name": name, "type": wire.avro, **_doc(info.description)}
        aliases = [alias for alias in _accepted(info) if alias != name]
        if aliases:
            field["aliases"] = aliases
        default = default_of(info)
        if default is PydanticUndefined:
            return field
        if not (wire.write or _fits(type(default), wire.accepts)):
            self._fail(path, f"has a default of type {type(default).__name__}", f"use {_names(wire.accepts)}")
        try:
            datum = wire.write(default) if wire.write else default
        except EncodeError as error:
            self._fail(path, f"has a default it does not allow ({error.what})", "change the default or the type")
        if isinstance(wire.avro, list):
            field["type"] = _default_first(wire.avro, datum)
        field["default"] = _json(field["type"], datum)
        return field

    def _record_writer(self, model: type, fields: dict[str, WireType], path: str) -> Convert:
        special = [(name, wire.write) for name, wire in fields.items() if wire.write]
        known: set[tuple[type, ...]] = set()

        def write(value: Any) -> Any:
            if type(value) is not model:  # a subclass may have more fields, and they would be lost
                self._refuse(path, value, (model,))
            data = value.__dict__
            shape = tuple(map(type, data.values()))
            if shape not in known:
                self._check(data, fields, path)
                known.add(shape)
            if special:
                data = data.copy()
                for name, convert in special:
                    data[name] = convert(data[name])
            return data

        return write

    def _check(self, data: dict[str, Any], fields: dict[str, WireType], path: str) -> None:
        prefix = f"{path}." if path else ""
        for name in [*fields, *data]:
            if name not in data or name not in fields:
                state = "unknown" if name in data else "missing"
                self._unwritable(f"{prefix}{name}", f"is {state}", "build events by their constructor, which validates")
            wire = fields[name]
            if not wire.write and not _fits(type(data[name]), wire.accepts):
                self._refuse(f"{prefix}{name}", data[name], wire.accepts)

    def _checked(self, wire: WireType, path: str) -> Convert:
        def write(value: Any) -> Any:
            if type(value) not in wire.accepts and not _fits(type(value), wire.accepts):
                self._refuse(path, value, wire.accepts)
            return value

        return wire.write or write

    def _array(self, item: WireType, kinds: tuple[type, ...], path: str) -> WireType:
        convert, each = self._checked(item, f"{path}[]"), item.read
        ordered = not {set, frozenset} & set(kinds)

        def write(value: Any) -> Any:
            if type(value) not in kinds and not isinstance(value, kinds):
                self._refuse(path, value, kinds)
            # Sets have no stable order, but a re-run must publish the same bytes.
            return [*map(convert, value if ordered else sorted(value, key=repr))]

        read = (lambda datum: [each(one) for one in datum]) if each else None
        return WireType({"type": "array", "items": item.avro}, kinds, write, read)

    def _map(self, item: WireType, path: str) -> WireType:
        convert, each = self._checked(item, f"{path}{{}}"), item.read

        def write(value: Any) -> Any:
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                self._refuse(path, value, (dict,))
            return {key: convert(one) for key, one in value.items()}

        read = (lambda datum: {key: each(one) for key, one in datum.items()}) if each else None
        return WireType({"type": "map", "values": item.avro}, (dict,), write, read)

    def _union(self, args: tuple[Any, ...], metadata: Sequence[Any], path: str) -> WireType:
        branches = [self._of(arg, metadata, path) for arg in args if arg is not _NONE]
        nulls = [_NONE] if _NONE in args else []
        avro = [*("null" for _ in nulls), *(wire.avro for wire in branches)]
        accepts = (*nulls, *(cls for wire in branches for cls in wire.accepts))
        if len(branches) == 1 and isinstance(branches[0].avro, str):
            return WireType(avro, accepts)
        looks = [_look(wire.avro) for wire in branches]
        records = looks.count("record")
        if len(set(looks)) < len(looks) - max(records - 1, 0) or ("map" in looks and records):
            self._fail(path, "is a union of types that look alike in a record", "wrap each in a model of its own")
        self.ambiguous |= records > 1
        read = _union_reader(branches, looks) if any(wire.read for wire in branches) else None
        return WireType(avro, accepts, self._union_writer(branches, accepts, path), read)

    def _union_writer(self, branches: list[WireType], accepts: tuple[type, ...], path: str) -> Convert:
        ways = {cls: (_branch(wire.avro), wire.write) for wire in branches for cls in wire.accepts}

        def write(value: Any) -> Any:
            if value is None and _NONE in accepts:
                return None
            way = ways.get(type(value))
            if way is None:
                way = next((ways[cls] for cls in accepts if _fits(type(value), (cls,))), None)
                if way is None:
                    self._refuse(path, value, accepts)
            branch, convert = way
            return (branch, convert(value) if convert else value)

        return write

    def _clock(self, kind: type[dt.datetime | dt.time], path: str) -> WireType:
        """An instant needs its zone; a time of day has none, for a record could not keep it."""
        aware = kind is dt.datetime
        avro = {"type": "long", "logicalType": "timestamp-micros" if aware else "time-micros"}

        def write(value: Any) -> Any:
            if not isinstance(value, kind):
                self._refuse(path, value, (kind,))
            if (value.tzinfo is not None) is not aware:
                remedy = "give it a zone: datetime.now(tz=UTC)" if aware else "use a datetime, or drop its zone"
                self._unwritable(path, f"is a {kind.__name__} {'without' if aware else 'with'} a time zone", remedy)
            return value

        return WireType(avro, (kind,), write)

    def _decimal(self, metadata: Sequence[Any], path: str) -> WireType:
        digits, places = _limit(metadata, "max_digits"), _limit(metadata, "decimal_places")
        scale = SCALE if places is None else places
        # Without declared places, all the declared digits may stand before the point.
        precision = PRECISION if digits is None else digits + (SCALE if places is None else 0)
        unit, context = Decimal(1).scaleb(-scale), Context(prec=precision, traps=[Inexact, InvalidOperation])

        def write(value: Any) -> Any:
            if not isinstance(value, Decimal):
                self._refuse(path, value, (Decimal,))
            if value.is_nan():
                self._unwritable(path, "is no number", "leave out what is not known: Decimal | None")
            try:
                return value.quantize(unit, context=context)
            except (Inexact, InvalidOperation):
                remedy = "round it where it is made, or declare Field(max_digits=..., decimal_places=...)"
                self._unwritable(path, f"has more digits than decimal({precision}, {scale}) holds", remedy)

        avro = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
        return WireType(avro, (Decimal,), write)

    def _enum(self, kind: type[enum.Enum], path: str) -> WireType:
        by_value = all(isinstance(member.value, str) and _SYMBOL.match(member.value) for member in kind)
        symbols = {member: member.value if by_value else member.name for member in kind}
        avro: dict[str, Any] = {"type": "enum", "name": self._define(kind.__name__, kind, path), **_doc(kind.__doc__)}
        avro["symbols"] = list(symbols.values())
        with suppress(ValueError):  # an Enum says with `_missing_` which member stands for unknown values
            avro["default"] = symbols[kind("choreo.unknown")]
        members = {symbol: member for member, symbol in symbols.items()}
        if by_value and issubclass(kind, str):
            return WireType(avro, (kind,))

        def write(value: Any) -> Any:
            if type(value) is not kind:
                self._refuse(path, value, (kind,))
            return symbols[value]

        return WireType(avro, (kind,), write, None if by_value else lambda symbol: members.get(symbol, symbol))

    def _literal(self, symbols: tuple[Any, ...], path: str) -> WireType:
        if not all(isinstance(symbol, str) and _SYMBOL.match(symbol) for symbol in symbols):
            self._fail(path, "is a Literal that is no list of Avro names", "use an Enum: its member names are written")
        owner = self._name if len(self._open) == 1 else self._open[-1].__name__
        field = re.sub(r"\W", "", path.rpartition(".")[2]).title().replace("_", "")
        name = self._define(owner + field, symbols, path)

        def write(value: Any) -> Any:
            if value not in symbols:
                self._unwritable(path, f"is none of {', '.join(symbols)}", "use one of them")
            return value

        return WireType({"type": "enum", "name": name, "symbols": list(symbols)}, (str,), write)

    def _define(self, short: str, what: Any, path: str) -> str:
        short = re.sub(r"\W+", "_", short).strip("_")
        name = f"{self._namespace}.{short}" if self._namespace else short
        if self._named.setdefault(name, what) != what:
            self._fail(path, f"has a second type named {name}", "rename one of the two classes")
        return name

    def _fail(self, path: str, what: str, remedy: str) -> NoReturn:
        raise DeclarationError(f"event {self._event.__qualname__}: field {path} {what}", remedy=remedy)

    def _refuse(self, path: str, value: Any, accepts: tuple[type, ...]) -> NoReturn:
        remedy = "build events by their constructor, which validates"
        self._unwritable(path, f"is a {type(value).__name__}, not a {_names(accepts)}", remedy)

    def _unwritable(self, path: str, what: str, remedy: str) -> NoReturn:
        where = f"field {path} {what}" if path else f"it {what}"
        raise EncodeError(f"event {self._event.__qualname__} cannot be written: {where}", remedy=remedy)


def _unwrapped(annotation: Any, metadata: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The type behind Annotated, NewType, `type X = ...` and pydantic's own names, with all constraints on the way."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*metadata, *more]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # in `typing` from Python 3.12
            annotation = annotation.__value__
        else:
            return _MEANT.get(annotation, annotation), metadata


def _limit(metadata: Sequence[Any], name: str) -> int | None:
    for constraint in metadata:
        found = getattr(constraint, name, None)
        if found is None and isinstance(constraint, FieldInfo):
            found = _limit(constraint.metadata, name)
        if found is not None:
            return int(found)
    return None


def _accepted(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


def _doc(text: str | None) -> dict[str, str]:
    return {"doc": inspect.cleandoc(text)} if text else {}


def _fits(cls: type, accepts: tuple[type, ...]) -> bool:
    """Whether a value of this class is one of those; True is no int here, and a datetime no date."""
    return cls in accepts or (issubclass(cls, accepts) and not issubclass(cls, (bool, dt.datetime)))


def _names(classes: tuple[type, ...]) -> str:
    return " or ".join("None" if cls is _NONE else cls.__name__ for cls in classes)


def _look(avro: Any) -> str:
    """How a datum looks when it is read: two branches of a union that look the same could not be told apart."""
    kind = avro if isinstance(avro, str) else str(avro["type"])
    return "string" if kind == "enum" else kind


def _branch(avro: Any) -> str:
    return avro if isinstance(avro, str) else str(avro.get("name", avro["type"]))


def _record_reader(reads: list[tuple[str, Convert]]) -> Convert:
    def read(datum: Any) -> Any:
        if type(datum) is dict:  # else it is a field's default, which is pydantic's own already
            datum.pop(MODEL, None)
            for name, convert in reads:
                datum[name] = convert(datum[name])
        return datum

    return read


def _union_reader(branches: list[WireType], looks: list[str]) -> Convert:
    models: dict[Any, Any] = {wire.accepts[0]: wire.read for wire in branches}
    plain: dict[Any, Any] = {_SEEN_AS[look]: w.read for w, look in zip(branches, looks, strict=True) if w.read}

    def read(datum: Any) -> Any:
        if type(datum) is dict and MODEL in datum:
            model = datum[MODEL]
            return model.model_validate(models[model](datum))
        convert = plain.get(type(datum))
        return convert(datum) if convert else datum

    return read


def _default_first(union: list[Any], datum: Any) -> list[Any]:
    """Avro reads a union's default by its first branch."""
    named = datum[0] if isinstance(datum, tuple) else next(branch for branch in union if branch != "null")
    first = "null" if datum is None else named
    return sorted(union, key=lambda branch: _branch(branch) != first)


def _json(avro: Any, datum: Any) -> Any:
    """The datum as Avro writes defaults: by its underlying type, bytes as the characters U+0000 to U+00FF."""
    buffer = io.BytesIO()
    once = named_once(avro, set())
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(once), datum)
    buffer.seek(0)
    raw = fastavro.schemaless_reader(buffer, fastavro.parse_schema(without(once, "logicalType")))
    return json.loads(json.dumps(raw, default=lambda octets: octets.decode("latin-1")))
