"""Avro schemas as plain data: names written out, one stable text, one identity."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

NAMED = frozenset({"record", "error", "enum", "fixed"})
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def normal(schema: Any, namespace: str = "") -> Any:
    """The schema in one of its many spellings: full names, no wrapping, no documentation.

    Like Avro's Parsing Canonical Form, but what decides how data is understood stays: logical types, defaults, aliases.

    Raises:
        LookupError, TypeError: it is no schema.
    """
    if isinstance(schema, list):
        return [normal(branch, namespace) for branch in schema]
    if isinstance(schema, str):
        return schema if schema in _PRIMITIVES else _full_name(schema, namespace)
    if not isinstance(schema["type"], str):
        return normal(schema["type"], namespace)
    plain = {key: value for key, value in schema.items() if key not in {"doc", "namespace", "order"}}
    if schema["type"] in NAMED:
        plain["name"] = _full_name(schema["name"], schema.get("namespace", namespace))
        namespace = plain["name"].rpartition(".")[0]
        if "aliases" in schema:
            plain["aliases"] = sorted(_full_name(alias, namespace) for alias in schema["aliases"])
    if schema["type"] in {"record", "error"}:
        plain["fields"] = [
            {**without(field, "doc", "order"), "type": normal(field["type"], namespace)} for field in schema["fields"]
        ]
    for inside in {"items", "values"} & plain.keys():
        plain[inside] = normal(schema[inside], namespace)
    return plain if len(plain) > 1 else normal(schema["type"], namespace)


def parts(schema: Any) -> list[Any]:
    """The schemas directly inside one."""
    if isinstance(schema, str):
        return []
    if isinstance(schema, list):
        return schema
    inside = [schema[key] for key in ("items", "values") if key in schema]
    return inside + [field["type"] for field in schema.get("fields", ())]


def without(part: Any, *keys: str) -> Any:
    """A schema, or a part of one, without these properties at any depth."""
    if isinstance(part, list):
        return [without(one, *keys) for one in part]
    if isinstance(part, dict):
        return {key: without(value, *keys) for key, value in part.items() if key not in keys}
    return part


def named_once(schema: Any, seen: set[str]) -> Any:
    """The schema with every named type defined at its first use and only named after that."""
    if isinstance(schema, list):
        return [named_once(branch, seen) for branch in schema]
    if isinstance(schema, str):
        return schema
    if schema.get("name") in seen:
        return schema["name"]
    once = dict(schema)
    if "name" in schema:
        seen.add(schema["name"])
    if "fields" in schema:
        once["fields"] = [{**field, "type": named_once(field["type"], seen)} for field in schema["fields"]]
    for inside in {"items", "values"} & schema.keys():
        once[inside] = named_once(schema[inside], seen)
    return once


def is_recursive(schema: Any, opened: frozenset[str] = frozenset()) -> bool:
    """Whether a named type of a schema in normal form occurs inside itself, so that data may nest without end."""
    if isinstance(schema, str):
        return schema in opened
    opened |= {name_of(schema)}
    return any(is_recursive(part, opened) for part in parts(schema))


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


def name_of(schema: Any) -> str:
    """The full name of a named schema; empty for others."""
    named = isinstance(schema, dict) and "name" in schema
    return _full_name(schema["name"], schema.get("namespace", "")) if named else ""


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
