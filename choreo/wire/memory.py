"""The registry in memory: for tests. What is registered here is known here alone."""

from __future__ import annotations

from typing import Any

from choreo.errors import SchemaNotFoundError
from choreo.wire.avro import identity, schema_id
from choreo.wire.registry import Registry, Schema


class MemoryRegistry:
    """Implements `Registry`; lives as long as this object.

    Args:
        base: another registry that is read too, and never written.
    """

    def __init__(self, base: Registry | None = None) -> None:
        self._base = base
        self._versions: dict[str, list[Schema]] = {}
        self._known: dict[int | str, Schema] = {}

    def address(self, schema_id: int) -> str:
        """A URN, for memory has no address that others could open."""
        return f"urn:choreo:schema:{schema_id}"

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema, the same that a folder would give it."""
        known = self._versions.setdefault(subject, [])
        if identity(schema) not in map(identity, known):
            known.append(schema)
        number = schema_id(schema)
        self._known[number] = schema
        return number

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id; the other registry is asked for what is not here."""
        if schema_id in self._known:
            return self._known[schema_id]
        if self._base is None:
            raise SchemaNotFoundError(f"schema {schema_id} is not in this registry", remedy="register it first")
        return await self._base.schema(schema_id)

    async def versions(self, subject: str) -> list[Schema]:
        """All versions: the other registry's, then those that are only here."""
        older = await self._base.versions(subject) if self._base is not None else []
        known = set(map(identity, older))
        return [*older, *(one for one in self._versions.get(subject, ()) if identity(one) not in known)]

    async def aclose(self) -> None:
        """Close the other registry, if there is one."""
        if self._base is not None:
            await self._base.aclose()
