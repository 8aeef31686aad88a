"""Avro schemas as plain data: one normal form, one stable text, one identity."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from fastavro.schema import SchemaParseException, expand_schema

_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_SAYS_NOTHING = frozenset({"doc", "order", "__fastavro_parsed", "__named_schemas"})


def normal(schema: Any) -> Any:
    """The schema in one of its many spellings: each type written out where it is used, without documentation.

    Like Avro's Parsing Canonical Form, but what decides how data is understood stays: logical types, defaults, aliases.

    Raises:
        ValueError: it is no schema, or it contains itself: data could nest until the stack of its reader ends.
    """
    try:
        return _plain(expand_schema(schema))
    except (SchemaParseException, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def identity(schema: Any) -> str:
    """Text that is the same for two schemas exactly when they mean the same to every reader."""
    return json.dumps(normal(schema), sort_keys=True, separators=(",", ":"))


def schema_id(schema: Any) -> int:
    """An id that follows from the schema alone: 31 bits of its identity's BLAKE2b, never 0."""
    digest = blake2b(identity(schema).encode(), digest_size=4).digest()
    return (int.from_bytes(digest, "big") & 0x7FFFFFFF) or 1


def text(schema: Any) -> str:
    """The schema as `.avsc` files hold it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _plain(schema: Any) -> Any:
    """What fastavro has expanded, without what says nothing; only types inside themselves are still names there."""
    if isinstance(schema, list):
        return [_plain(branch) for branch in schema]
    if isinstance(schema, str):
        if schema not in _PRIMITIVES:
            raise ValueError(f"{schema} contains itself")
        return schema
    plain = {key: value for key, value in schema.items() if key not in _SAYS_NOTHING}
    if "fields" in plain:
        plain["fields"] = [
            {key: _plain(value) if key == "type" else value for key, value in field.items() if key not in _SAYS_NOTHING}
            for field in plain["fields"]
        ]
    for inside in {"items", "values"} & plain.keys():
        plain[inside] = _plain(plain[inside])
    return plain if len(plain) > 1 else plain["type"]
