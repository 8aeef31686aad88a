"""The registry port: where schemas live, so that whoever reads a record knows what its writer meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from choreo.errors import ConfigurationError

Schema = dict[str, Any]


class Registry(Protocol):
    """A store of schemas by id, and by subject in the order of their versions; they never change once they have an id.

    A subject is `<topic>-<type name>` (Confluent's TopicRecordNameStrategy). Whatever asks the registry raises
    RegistryUnavailableError if there is no answer, and may be repeated.
    """

    def address(self, schema_id: int) -> str:
        """An absolute URI of a schema, for `ce_dataschema`; it holds no secret."""

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of this schema, which becomes the subject's newest version if it is none of them yet.

        Raises:
            IncompatibleSchemaError: the registry refuses it.
            ConfigurationError: no right or no way to write here.
        """

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id (a number, or a GUID as text); SchemaNotFoundError if there is none."""

    async def versions(self, subject: str) -> list[Schema]:
        """All versions, oldest first; empty if the subject is unknown."""

    async def aclose(self) -> None:
        """Free what it holds. May be repeated."""


def open_registry(url: str = "schemas") -> Registry:
    """A registry by its address: a folder of `.avsc` files, or the http(s) address of a Confluent-API registry.

    Raises:
        ConfigurationError: the address is neither.
    """
    from choreo.wire.folder import FolderRegistry
    from choreo.wire.http import HttpRegistry

    scheme = urlsplit(url).scheme
    if scheme in {"http", "https"}:
        return HttpRegistry(url)
    if scheme:
        remedy = "name a folder such as schemas/, or http://host:port"
        raise ConfigurationError(f"the registry's address has the unknown scheme {scheme!r}", remedy=remedy)
    return FolderRegistry(Path(url))
