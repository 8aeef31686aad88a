"""From an event class to its Avro schema and the conversions that go with it."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import io
import json
import re
import types
from collections.abc import Sequence
from decimal import Decimal
from functools import cache, partial
from typing import Annotated, Any, Literal, NamedTuple, NewType, NoReturn, Union, get_args, get_origin

import fastavro
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, SchemaValidator

from choreo.errors import DeclarationError
from choreo.events import Event
from choreo.wire import datum as make
from choreo.wire.datum import Convert, WireType

_NONE = type(None)
_REVIVE = "__revive__"
"""Datum key of a function that makes the datum an instance of its class, where a union has several records."""
_CONSTANT = (list, tuple, dict, set, frozenset, pydantic.BaseModel)
"""Default factories that make the same value each time; of others a schema can know nothing."""


class Plan(NamedTuple):
    """How one event class goes over the wire.

    `write` makes the Avro datum of an event, or raises pydantic's ValidationError; `read` makes pydantic's input of a
    datum, None if that will do. `records` has by full name the class of each record, and what makes an instance of a
    datum. It is `ambiguous` if some union has several records, so that a datum has to say which one it is.
    """

    schema: dict[str, Any]
    write: Convert
    read: Convert | None
    records: dict[str, tuple[type[pydantic.BaseModel], Convert]]
    ambiguous: bool


@cache
def plan_of(event_class: type[Event]) -> Plan:
    """The plan of an event class; DeclarationError if a field has a type or default that Avro cannot hold."""
    walk = _Walk(event_class)
    root = walk.record(event_class, "")
    schema, write = _named_once(root.avro, set()), SchemaValidator(root.write).validate_python
    return Plan(schema, write, _revived if walk.ambiguous else root.read, walk.records, walk.ambiguous)


def schema_of(event_class: type[Event]) -> dict[str, Any]:
    """The Avro schema of an event class: a record named as the event's type."""
    return plan_of(event_class).schema


def reading_schema(event_class: type[Event]) -> Any:
    """The class's schema for resolving: fastavro hands out defaults as they stand there, so they are Python's own."""
    plan = plan_of(event_class)
    parsed: Any = fastavro.parse_schema(plan.schema)
    for name, (model, revive) in plan.records.items():
        fields = parsed["__named_schemas"][name]["fields"]
        for field in fields:
            default = _default_of(model.model_fields[field["name"]])
            if default is not PydanticUndefined:
                field["default"] = default
        if plan.ambiguous:
            fields.append({"name": _REVIVE, "type": "null", "default": revive})
    return parsed


def quick_schema(event_class: type[Event]) -> Any:
    """The class's schema for data of the very same schema: decimals stay bytes, which `Plan.read` converts quicker."""
    return fastavro.parse_schema(_without_decimals(plan_of(event_class).schema))


def _without_decimals(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_decimals(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("logicalType") == "decimal":
        return part["type"]
    return {key: value if key == "default" else _without_decimals(value) for key, value in part.items()}


def _revived(datum: Any) -> Any:
    """The datum with the records inside it as instances of their classes."""
    if isinstance(datum, list):
        return [_revived(one) for one in datum]
    if type(datum) is not dict:
        return datum
    inside = {name: _revived(one) for name, one in datum.items()}
    # A map may have any key, but no function.
    return inside.pop(_REVIVE)(inside) if callable(inside.get(_REVIVE)) else inside


class _Walk:
    """One walk over the annotations of an event class; paths name its fields: `lines[].price`."""

    def __init__(self, event: type[Event]) -> None:
        self._event = event
        self._namespace, _, self._name = event.contract.type_name.rpartition(".")
        self._named: dict[str, Any] = {}
        self._open: list[type[pydantic.BaseModel]] = []
        self.records: dict[str, tuple[type[pydantic.BaseModel], Convert]] = {}
        self.ambiguous = False

    def record(self, model: type[pydantic.BaseModel], path: str) -> WireType:
        if model in self._open:
            self._fail(path, f"has {model.__name__} inside {model.__name__}", "carry a flat list of nodes with ids")
        name = self._define(model.__name__ if path else self._name, model, path)
        self._open.append(model)
        fields, declared = {}, []
        for field, info in model.model_fields.items():
            inner = f"{path}.{field}" if path else field
            self._check_carried(model, field, info, inner)
            fields[field] = self._of(info.annotation, info.metadata, inner)
            declared.append(self._declared(info, field, fields[field], inner))
        self._open.pop()
        wire = make.record(model, {"type": "record", "name": name, **_doc(model.__doc__), "fields": declared}, fields)
        self.records[name] = model, partial(_revive, model, wire.read)
        return wire

    def _of(self, annotation: Any, metadata: Sequence[Any], path: str) -> WireType:
        annotation, metadata = _unwrapped(annotation, metadata)
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in {Union, types.UnionType}:
            branches = [self._of(arg, metadata, path) for arg in args if arg is not _NONE]
            self._check_union([make.look_of(wire.avro) for wire in branches], path)
            return make.union(branches, nullable=_NONE in args)
        if origin is Literal:
            if not all(isinstance(symbol, str) and make.SYMBOL.match(symbol) for symbol in args):
                self._fail(path, "is a Literal that is no list of Avro names", "use an Enum")
            owner = self._name if len(self._open) == 1 else self._open[-1].__name__
            name = owner + re.sub(r"\W|_", "", path.rpartition(".")[2].title())
            return make.literal(args, self._define(name, args, path))
        if origin in {list, set, frozenset} or (origin is tuple and args[1:] == (...,)):
            return make.array(self._of(args[0], (), f"{path}[]"), origin)
        if origin is dict and _unwrapped(args[0], ())[0] is str:
            return make.mapping(self._of(args[1], (), f"{path}{{}}"))
        return self._of_class(annotation, metadata, path)

    def _of_class(self, annotation: Any, metadata: Sequence[Any], path: str) -> WireType:
        if annotation in make.PLAIN:
            return make.PLAIN[annotation]
        if annotation is Decimal:
            return make.decimal(_limit(metadata, "max_digits"), _limit(metadata, "decimal_places"))
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            return self.record(annotation, path)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and not issubclass(annotation, enum.Flag):
            name = self._define(annotation.__name__, annotation, path)
            return make.enumeration(annotation, name)
        shown = annotation.__qualname__ if isinstance(annotation, type) else annotation
        return self._fail(path, f"has the type {shown}, which no Avro type holds", "docs/schemas.md lists others")

    def _declared(self, info: FieldInfo, name: str, wire: WireType, path: str) -> dict[str, Any]:
        """The field of a record's schema."""
        field: dict[str, Any] = {"name": name, "type": wire.avro, **_doc(info.description)}
        aliases = [alias for alias in _accepted(info) if alias != name]
        if aliases:
            field["aliases"] = aliases
        default = _default_of(info)
        if default is PydanticUndefined:
            return field
        try:
            datum = SchemaValidator(wire.write).validate_python(default)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            self._fail(path, f"has a default it does not allow ({reason})", "change the default or the type")
        if isinstance(wire.avro, list):  # Avro reads a union's default by its first branch
            first = "null" if datum is None else datum[0]
            field["type"] = sorted(wire.avro, key=lambda branch: make.branch_of(branch) != first)
        field["default"] = _json(_named_once(field["type"], set()), datum)
        return field

    def _check_carried(self, model: type[pydantic.BaseModel], field: str, info: FieldInfo, path: str) -> None:
        if info.exclude:
            self._fail(path, "is declared exclude=True, but a record carries every field", "drop exclude or the field")
        by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
        if info.validation_alias is not None and field not in _accepted(info) and not by_name:
            remedy = f"use validation_alias=AliasChoices({field!r}, ...)"
            self._fail(path, "accepts only its alias, but a record carries the field's own name", remedy)

    def _check_union(self, looks: list[str], path: str) -> None:
        records = looks.count("record")
        self.ambiguous |= records > 1
        if len(set(looks)) < len(looks) - max(records - 1, 0) or {"map", "record"} <= set(looks):
            self._fail(path, "is a union of types that look alike in a record", "wrap each in a model of its own")

    def _define(self, short: str, what: Any, path: str) -> str:
        short = re.sub(r"\W+", "_", short).strip("_")
        name = f"{self._namespace}.{short}" if self._namespace else short
        if self._named.setdefault(name, what) != what:
            self._fail(path, f"has a second type named {name}", "rename one of the two classes")
        return name

    def _fail(self, path: str, what: str, remedy: str) -> NoReturn:
        raise DeclarationError(f"event {self._event.__qualname__}: field {path} {what}", remedy=remedy)


def _revive(model: type[pydantic.BaseModel], read: Convert | None, datum: Any) -> pydantic.BaseModel:
    return model.model_validate(read(datum) if read else datum, strict=False)


def _named_once(part: Any, seen: set[str]) -> Any:
    """A schema with every named type defined at its first use and only named after that."""
    if isinstance(part, list):
        return [_named_once(one, seen) for one in part]
    if not isinstance(part, dict):
        return part
    if "fields" in part or "symbols" in part:
        if part["name"] in seen:
            return part["name"]
        seen.add(part["name"])
    return {key: value if key == "default" else _named_once(value, seen) for key, value in part.items()}


def _json(avro: Any, datum: Any) -> Any:
    """The datum as Avro writes defaults: by its underlying type, bytes as the characters U+0000 to U+00FF."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(avro), datum)
    buffer.seek(0)
    plain = json.loads(json.dumps(avro), object_hook=lambda part: {k: v for k, v in part.items() if k != "logicalType"})
    raw = fastavro.schemaless_reader(buffer, fastavro.parse_schema(plain))
    return json.loads(json.dumps(raw, default=lambda octets: octets.decode("latin-1")))


def _default_of(info: FieldInfo) -> Any:
    """A field's default as Avro knows defaults: a constant; PydanticUndefined if it has none."""
    if isinstance(info.default_factory, type) and issubclass(info.default_factory, _CONSTANT):
        return info.default_factory()
    return info.default


def _unwrapped(annotation: Any, metadata: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The type behind Annotated, NewType, `type X = ...` and AwareDatetime, with all constraints on the way."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*metadata, *more, *(part for one in more for part in getattr(one, "metadata", ()))]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # in `typing` from Python 3.12
            annotation = annotation.__value__
        else:
            return dt.datetime if annotation is pydantic.AwareDatetime else annotation, metadata


def _limit(metadata: Sequence[Any], name: str) -> int | None:
    return next((limit for one in metadata if (limit := getattr(one, name, None)) is not None), None)


def _accepted(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str)]


def _doc(text: str | None) -> dict[str, str]:
    return {"doc": inspect.cleandoc(text)} if text else {}
