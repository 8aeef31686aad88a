"""JSON Schema of what `choreo.saga.export.plain` writes, from the types themselves."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


class Shapes:
    """Collects the schemas of classes, each once, for `components/schemas`."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type; a class becomes a reference."""
        if kind is Any:
            return {}
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in {Union, types.UnionType}:
            return {"anyOf": [self.of(one) for one in arguments]}
        return self._class(kind) if origin is None else self._several(origin, arguments)

    def _several(self, origin: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        return {"type": "array", "items": self.of(arguments[0])}

    def _class(self, kind: type) -> dict[str, Any]:
        if kind.__name__ not in self.components:
            self.components[kind.__name__] = {}  # it may hold itself
            names = [one.name for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else kind._fields  # type: ignore[attr-defined] # a named tuple
            hints = get_type_hints(kind)
            self.components[kind.__name__] = self.record({name: hints[name] for name in names}, kind.__doc__ or "")
        return {"$ref": f"#/components/schemas/{kind.__name__}"}

    def record(self, fields: Mapping[str, Any], meaning: str = "") -> dict[str, Any]:
        """The schema of an object that has all these fields."""
        told = {"description": meaning.split("\n\n", maxsplit=1)[0]} if meaning else {}
        properties = {name: self.of(kind) for name, kind in fields.items()}
        return {**told, "type": "object", "properties": properties, "required": list(fields)}
