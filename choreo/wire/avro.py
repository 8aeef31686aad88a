"""Avro schemas as plain data: names written out, one stable text, one identity."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

NAMED = frozenset({"record", "error", "enum", "fixed"})
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def named_once(schema: Any, seen: set[str] | None = None) -> Any:
    """The schema with every named type defined at its first use and only named after that."""
    seen = set() if seen is None else seen
    if isinstance(schema, list):
        return [named_once(branch, seen) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema["type"] in NAMED:
        if schema["name"] in seen:
            return schema["name"]
        seen.add(schema["name"])
    once = dict(schema)
    if "fields" in schema:
        once["fields"] = [{**field, "type": named_once(field["type"], seen)} for field in schema["fields"]]
    for inner in ("items", "values"):
        if inner in schema:
            once[inner] = named_once(schema[inner], seen)
    return once


def normal(schema: Any, namespace: str = "") -> Any:
    """The schema in one of its many spellings: full names, no wrapping, no documentation.

    Like Avro's Parsing Canonical Form, but what decides how data is understood stays: logical types, defaults, aliases.
    """
    if isinstance(schema, list):
        return [normal(branch, namespace) for branch in schema]
    if isinstance(schema, str):
        return schema if schema in PRIMITIVES else _full_name(schema, namespace)
    if not isinstance(schema["type"], str):
        return normal(schema["type"], namespace)
    plain = {key: value for key, value in schema.items() if key not in {"doc", "namespace", "order"}}
    if "name" in schema:
        name = _full_name(schema["name"], schema.get("namespace", namespace))
        namespace = name.rpartition(".")[0]
        plain["name"] = name
        if "aliases" in schema:
            plain["aliases"] = sorted(_full_name(alias, namespace) for alias in schema["aliases"])
    if "fields" in schema:
        plain["fields"] = [_normal_field(field, namespace) for field in schema["fields"]]
    for inner in ("items", "values"):
        if inner in schema:
            plain[inner] = normal(schema[inner], namespace)
    if len(plain) == 1:
        return normal(schema["type"], namespace)
    return plain


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
    if not isinstance(schema, dict) or "name" not in schema:
        return ""
    return _full_name(schema["name"], schema.get("namespace", ""))


def is_recursive(schema: Any) -> bool:
    """Whether a named type occurs inside itself, so that data of it may nest without end."""

    def inside(part: Any, opened: frozenset[str]) -> bool:
        if isinstance(part, str):
            return part in opened
        if isinstance(part, list):
            return any(inside(branch, opened) for branch in part)
        opened = opened | {part["name"]} if "name" in part else opened
        parts = [field["type"] for field in part.get("fields", ())]
        parts += [part[inner] for inner in ("items", "values") if inner in part]
        return any(inside(inner, opened) for inner in parts)

    return inside(normal(schema), frozenset())


def _normal_field(field: dict[str, Any], namespace: str) -> dict[str, Any]:
    plain = {key: value for key, value in field.items() if key not in {"doc", "order"}}
    return {**plain, "type": normal(field["type"], namespace)}


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
