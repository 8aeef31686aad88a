"""Whether schemas can follow one another: Avro's schema resolution (specification 1.12), decided offline.

Stricter than the specification where data would be read as something else: a logical type may not change, and decimals
keep their scale. More lenient in one point: a reader's decimal may have more digits than its writer's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from choreo.wire.avro import normal

_NUMBERS = ("int", "long", "float", "double")
"""Each may be read as those after it."""


class Mode(StrEnum):
    """Who must be able to read whose data: BACKWARD means new readers, old data; transitive means all versions."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


class Incompatibility(NamedTuple):
    """One reason why a reader cannot read a writer's data; `rule` is a stable name of what is broken.

    The path names the field, such as `lines[].price`, a union's branch in angle brackets; it is empty for the record
    itself. The version counts the old schemas from 1; the direction says whether the new schema reads old data
    (`backward`) or the old one new data (`forward`).
    """

    path: str
    rule: str
    reason: str
    version: int = 1
    direction: str = "backward"


def check(new: Any, olds: Sequence[Any], mode: Mode = Mode.BACKWARD_TRANSITIVE) -> list[Incompatibility]:
    """Why `new` cannot follow `olds` (oldest first); empty if it can."""
    first = 0 if mode.endswith("TRANSITIVE") else max(len(olds) - 1, 0)
    found: list[Incompatibility] = []
    for version, old in enumerate(olds[first:], first + 1):
        if mode.startswith(("BACKWARD", "FULL")):
            found += [fault._replace(version=version) for fault in unreadable(new, old)]
        if mode.startswith(("FORWARD", "FULL")):
            found += [fault._replace(version=version, direction="forward") for fault in unreadable(old, new)]
    return found


def unreadable(reader: Any, writer: Any) -> list[Incompatibility]:
    """Why `reader` cannot read what `writer` wrote; empty if it can."""
    return list(_faults(normal(reader), normal(writer), ""))


def _faults(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    if isinstance(writer, list):
        for branch in writer:
            yield from _faults(reader, branch, f"{path}<{_kind(branch)}>" if len(writer) > 1 else path)
        return
    if isinstance(reader, list):
        # As readers do: the first branch that matches is taken, whatever comes of it.
        branches, reader = reader, next((branch for branch in reader if _matches(branch, writer)), None)
        if reader is None:
            reason = f"{_kind(writer)} is none of {', '.join(map(_kind, branches))}"
            yield Incompatibility(path, "missing-union-branch", reason)
            return
    if _matches(reader, writer):
        yield from _inner_faults(reader, writer, path)
    else:
        rule = "name-mismatch" if _type(reader) == _type(writer) else "type-mismatch"
        yield Incompatibility(path, rule, f"{_kind(writer)} cannot be read as {_kind(reader)}")


def _matches(reader: Any, writer: Any) -> bool:
    """Whether the two are of one kind, as far as can be seen without looking inside."""
    kind, wanted = _type(writer), _type(reader)
    if kind != wanted:
        return {kind, wanted} == {"string", "bytes"} or (
            kind in _NUMBERS and wanted in _NUMBERS[_NUMBERS.index(kind) :]
        )
    if not isinstance(writer, dict) or "name" not in writer:
        return True
    short = writer["name"].rpartition(".")[2]
    return reader["name"].rpartition(".")[2] == short or writer["name"] in reader.get("aliases", ())


def _inner_faults(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    kind = _type(writer)
    if _logical(reader) != _logical(writer):
        reason = f"{_logical(writer) or 'plain'} {kind} cannot be read as {_logical(reader) or 'plain'}"
        yield Incompatibility(path, "logical-type", reason)
    elif kind == "fixed" and reader["size"] != writer["size"]:
        yield Incompatibility(path, "fixed-size", f"size {writer['size']} cannot be read as {reader['size']}")
    elif _logical(reader) == "decimal":
        (digits, places), (old_digits, old_places) = (
            (one["precision"], one.get("scale", 0)) for one in (reader, writer)
        )
        if places != old_places or digits < old_digits:
            reason = f"decimal({old_digits}, {old_places}) cannot be read as decimal({digits}, {places})"
            yield Incompatibility(path, "decimal", reason)
    elif kind == "record":
        yield from _record_faults(reader, writer, path)
    elif kind == "array":
        yield from _faults(reader["items"], writer["items"], f"{path}[]")
    elif kind == "map":
        yield from _faults(reader["values"], writer["values"], f"{path}{{}}")
    elif kind == "enum" and "default" not in reader and (lost := set(writer["symbols"]) - {*reader["symbols"]}):
        reason = f"{reader['name']} knows no {', '.join(sorted(lost))} and has no default symbol"
        yield Incompatibility(path, "missing-symbols", reason)


def _record_faults(reader: Any, writer: Any, path: str) -> Iterator[Incompatibility]:
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        inner = f"{path}.{field['name']}" if path else field["name"]
        sources = [name for name in (field["name"], *field.get("aliases", ())) if name in written]
        if len(sources) > 1:
            yield Incompatibility(inner, "ambiguous-alias", f"the writer has {' and '.join(sources)} for it")
        elif sources:
            yield from _faults(field["type"], written[sources[0]]["type"], inner)
        elif "default" not in field:
            yield Incompatibility(inner, "missing-default", "the writer has no such field, and it has no default")


def _logical(schema: Any) -> str:
    return schema.get("logicalType", "") if isinstance(schema, dict) else ""


def _type(schema: Any) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _kind(schema: Any) -> str:
    """What messages call a schema."""
    return schema if isinstance(schema, str) else str(schema.get("name", schema["type"]))
