"""From an event class to its Avro schema and the conversions that go with it."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import io
import json
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

import fastavro
import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from choreo.errors import EncodeError
from choreo.events import Event
from choreo.wire import datum as make
from choreo.wire.avro import named_once, without
from choreo.wire.datum import NONE, Convert, Place, WireType

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


@dataclass(frozen=True, slots=True)
class Plan:
    """How one event class goes over the wire.

    Attributes:
        schema: its Avro schema.
        write: the Avro datum of an event; raises EncodeError naming the field.
        read: pydantic's input of a datum; None if the datum will do.
        models: the class of each record by full name.
        ambiguous: whether records are to be read with `MODEL` in them, because some union has several.
    """

    schema: dict[str, Any]
    write: Convert
    read: Convert | None
    models: dict[str, type[pydantic.BaseModel]]
    ambiguous: bool


@cache
def plan_of(event_class: type[Event]) -> Plan:
    """The plan of an event class.

    Raises:
        DeclarationError: a field has a type or default that Avro cannot hold.
    """
    walk = _Walk(event_class, marked=False)
    root = walk.record(event_class, Place(event_class.__qualname__))
    if walk.ambiguous:
        walk = _Walk(event_class, marked=True)
        root = walk.record(event_class, Place(event_class.__qualname__))
    assert root.write  # noqa: S101 - for the type checker: records always have a writer
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

    def __init__(self, event: type[Event], *, marked: bool) -> None:
        self._marked = marked
        self._namespace, _, self._name = event.contract.type_name.rpartition(".")
        self._named: dict[str, Any] = {}
        self._open: list[type[pydantic.BaseModel]] = []
        self.models: dict[str, type[pydantic.BaseModel]] = {}
        self.ambiguous = False

    def record(self, model: type[pydantic.BaseModel], place: Place) -> WireType:
        if model in self._open:
            place.fail(f"has {model.__name__} inside {model.__name__}", "carry a flat list of nodes with ids")
        name = self._define(model.__name__ if place.path else self._name, model, place)
        self._open.append(model)
        fields, declared = {}, []
        for field, info in model.model_fields.items():
            _check_names(model, field, info, place.field(field))
            fields[field] = self._of(info.annotation, info.metadata, place.field(field))
            declared.append(_declared(info, field, fields[field], place.field(field)))
        self._open.pop()
        self.models[name] = model
        avro = {"type": "record", "name": name, **_doc(model.__doc__), "fields": declared}
        write = make.record_writer(model, fields, place)
        return WireType(avro, (model,), write, make.record_reader(fields, marked=self._marked))

    def _of(self, annotation: Any, metadata: Sequence[Any], place: Place) -> WireType:
        annotation, metadata = _unwrapped(annotation, metadata)
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in {Union, types.UnionType}:
            branches = [self._of(arg, metadata, place) for arg in args if arg is not NONE]
            self.ambiguous |= sum(wire.accepts[0] in self.models.values() for wire in branches) > 1
            return make.union(branches, place, nullable=NONE in args)
        if origin is Literal:
            return make.literal(args, self._define(self._literal_name(place), args, place), place)
        if origin in _ARRAYS and (origin is not tuple or args[1:] == (...,)):
            return make.array(self._of(args[0], (), place.inside("[]")), _ARRAYS[origin], place)
        if origin in {dict, Mapping} and _unwrapped(args[0], ())[0] is str:
            return make.mapping(self._of(args[1], (), place.inside("{}")), place)
        return self._of_class(annotation, metadata, place)

    def _of_class(self, annotation: Any, metadata: Sequence[Any], place: Place) -> WireType:
        if annotation in make.PLAIN:
            return make.PLAIN[annotation]
        if annotation in {dt.datetime, dt.time}:
            return make.clock(annotation, place)
        if annotation is Decimal:
            return make.decimal(_limit(metadata, "max_digits"), _limit(metadata, "decimal_places"), place)
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            return self.record(annotation, place)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum) and not issubclass(annotation, enum.Flag):
            name = self._define(annotation.__name__, annotation, place)
            return make.enumeration(annotation, name, _doc(annotation.__doc__), place)
        shown = annotation.__qualname__ if isinstance(annotation, type) else annotation
        return place.fail(f"has the type {shown}, which no Avro type holds", "docs/schemas.md lists those that do")

    def _literal_name(self, place: Place) -> str:
        owner = self._name if len(self._open) == 1 else self._open[-1].__name__
        return owner + re.sub(r"\W", "", place.path.rpartition(".")[2]).title().replace("_", "")

    def _define(self, short: str, what: Any, place: Place) -> str:
        short = re.sub(r"\W+", "_", short).strip("_")
        name = f"{self._namespace}.{short}" if self._namespace else short
        if self._named.setdefault(name, what) != what:
            place.fail(f"has a second type named {name}", "rename one of the two classes")
        return name


def _check_names(model: type[pydantic.BaseModel], field: str, info: FieldInfo, place: Place) -> None:
    if info.exclude:
        place.fail("is declared exclude=True, but a record carries every field", "drop exclude or the field")
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    if info.validation_alias is not None and field not in _accepted(info) and not by_name:
        remedy = f"use validation_alias=AliasChoices({field!r}, ...)"
        place.fail("accepts only its alias, but a record carries the field's own name", remedy)


def _declared(info: FieldInfo, name: str, wire: WireType, place: Place) -> dict[str, Any]:
    """The field of a record's schema."""
    field: dict[str, Any] = {"name": name, "type": wire.avro, **_doc(info.description)}
    aliases = [alias for alias in _accepted(info) if alias != name]
    if aliases:
        field["aliases"] = aliases
    default = default_of(info)
    if default is PydanticUndefined:
        return field
    if not (wire.write or make.fits(type(default), wire.accepts)):
        place.fail(f"has a default of type {type(default).__name__}", f"use {make.names(wire.accepts)}")
    try:
        datum = wire.write(default) if wire.write else default
    except EncodeError as error:
        place.fail(f"has a default it does not allow ({error.what})", "change the default or the type")
    if isinstance(wire.avro, list):
        field["type"] = _default_first(wire.avro, datum)
    field["default"] = _json(named_once(field["type"], set()), datum)
    return field


def _default_first(union: list[Any], datum: Any) -> list[Any]:
    """Avro reads a union's default by its first branch."""
    named = datum[0] if isinstance(datum, tuple) else next(branch for branch in union if branch != "null")
    first = "null" if datum is None else named
    return sorted(union, key=lambda branch: make.branch_of(branch) != first)


def _json(avro: Any, datum: Any) -> Any:
    """The datum as Avro writes defaults: by its underlying type, bytes as the characters U+0000 to U+00FF."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(avro), datum)
    buffer.seek(0)
    raw = fastavro.schemaless_reader(buffer, fastavro.parse_schema(without(avro, "logicalType")))
    return json.loads(json.dumps(raw, default=lambda octets: octets.decode("latin-1")))


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
