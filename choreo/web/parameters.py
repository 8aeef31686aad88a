"""The parameters of questions: declared once, for reading them and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from choreo.errors import ConfigurationError
from choreo.saga.filter_text import MAX_LENGTH

_LONGEST, _DIGITS = 512, 16


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter, by its name in the query, or in the path.

    Attributes:
        schema: JSON Schema of its value; `integer` ones are read as numbers.
    """

    name: str
    meaning: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string", "maxLength": _LONGEST})
    where: str = "query"
    required: bool = False


SAGA = Parameter(
    name="saga", where="path", required=True,
    meaning="Its correlation id or the beginning of it, its business key, or the id of an event or dead letter of it.",
)  # fmt: skip
FILTER = Parameter(
    name="filter", meaning="Which sagas, such as `state = stuck and started > -2h`; all unless given.",
    schema={"type": "string", "maxLength": MAX_LENGTH, "examples": ["state = completed"]},
)  # fmt: skip
AS_OF = Parameter(
    name="as_of", meaning="As it was then: `-2h`, `2026-10-18`, `2026-10-18T14:30:00Z`.",
    schema={"type": "string", "maxLength": 64, "examples": ["-2h"]},
)  # fmt: skip


def limit(most: int, default: int) -> Parameter:
    """How many at most."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter(name="limit", meaning="At most so many, the newest.", schema=schema)


def read(request: Request, declared: Sequence[Parameter]) -> dict[str, Any]:
    """The values of a request's parameters, None for those that were not given.

    Raises:
        ConfigurationError: one is unknown, comes twice, or is none of its kind.
    """
    query = [parameter for parameter in declared if parameter.where == "query"]
    known = {parameter.name for parameter in query}
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            there = f"there are: {', '.join(sorted(known))}" if known else "there are none"
            raise ConfigurationError(f"there is no parameter {name!r}", remedy=there)
        if names.count(name) > 1:
            raise ConfigurationError(f"parameter {name!r} is given more than once")
    values = {parameter.name: _value(parameter, request.query_params.get(parameter.name)) for parameter in query}
    in_path = {parameter.name: parameter for parameter in declared if parameter.where == "path"}
    return values | {name: _value(parameter, request.path_params[name]) for name, parameter in in_path.items()}


def _value(parameter: Parameter, given: str | None) -> Any:
    schema = parameter.schema
    if given is None:
        return schema.get("default")
    if schema["type"] == "integer":
        least, most = schema["minimum"], schema["maximum"]
        if not (given.isascii() and given.isdecimal() and len(given) < _DIGITS and least <= int(given) <= most):
            raise ConfigurationError(
                f"{parameter.name} is {given[:80]!r}", why=f"it is a number from {least} to {most}"
            )
        return int(given)
    if "enum" in schema and given not in schema["enum"]:
        raise ConfigurationError(
            f"{parameter.name} is {given[:80]!r}", remedy=f"choose one of: {', '.join(schema['enum'])}"
        )
    if len(given) > schema.get("maxLength", _LONGEST):
        raise ConfigurationError(f"{parameter.name} has more than {schema['maxLength']} characters")
    return given
