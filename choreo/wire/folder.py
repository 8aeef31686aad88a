"""The folder registry: `.avsc` files, offline, shared by all processes that see the folder.

    schemas/<topic>/<Type>.avsc                 the contract: what `choreo schema write` wrote, or a person
    schemas/<topic>/versions/<Type>.<n>.avsc    every other version, numbered in the order they came; they never change

A subject with one version has its contract only. When a second one comes, the contract is first kept as version 1, so
that the numbers alone tell the order. Ids follow from the schemas and are the same on every machine. Files appear whole
or not at all: they are written aside, then linked to their final name, which fails if somebody else was faster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from choreo.errors import ConfigurationError, IncompatibleSchemaError, SchemaNotFoundError
from choreo.wire.avro import identity, schema_id, text
from choreo.wire.registry import Schema


class FolderRegistry:
    """A registry in a folder, which need not exist before something is registered."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[int | str, Any] = {}

    def address(self, schema_id: int) -> str:
        """A URN, for a folder has no address that others could open."""
        return f"urn:choreo:schema:{schema_id}"

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema; adds a version, and the contract if it is the first one."""
        path = self._path(subject)
        with self._writing(subject):
            if not _history(path):
                _link(path, schema)
            history = _history(path)
            if not _has(history, schema):
                for version in (*history, schema):
                    _add(path, version)
        return self._remember(schema)

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id; the folder is read again when the id is new."""
        if schema_id not in self._known:
            for path in sorted(self._root.glob("*/**/*.avsc")):
                self._remember(_load(path))
        if schema_id not in self._known:
            remedy = "copy its .avsc file there, or point CHOREO_REGISTRY at the registry that its writer uses"
            raise SchemaNotFoundError(f"schema {schema_id} is not in the folder {self._root}", remedy=remedy)
        return self._known[schema_id]

    async def versions(self, subject: str) -> list[Schema]:
        """See `history`."""
        return self.history(subject)

    async def aclose(self) -> None:
        """Nothing is open."""

    def history(self, subject: str) -> list[Schema]:
        """All versions, oldest first: the numbered ones, then the contract if it is none of them."""
        return _history(self._path(subject))

    def contract(self, topic: str, type_name: str) -> Schema | None:
        """The contract of a type, None if there is no file."""
        path = self._path(f"{topic}-{type_name}")
        return _load(path) if path.exists() else None

    def contracts(self, type_name: str) -> list[tuple[str, Schema]]:
        """The contracts of a type, with their topics."""
        return [(path.parent.name, _load(path)) for path in sorted(self._root.glob(f"*/{type_name}.avsc"))]

    def write_contract(self, topic: str, type_name: str, schema: Schema) -> tuple[Path, bool]:
        """Make this the contract and keep the one before as a version; returns the file, and whether it changed."""
        path, old = self._path(f"{topic}-{type_name}"), self.contract(topic, type_name)
        if old is not None and text(old) == text(schema):
            return path, False
        with self._writing(f"{topic}-{type_name}"):
            if old is not None and identity(old) != identity(schema):
                _add(path, old)
            _aside(path, schema).replace(path)
        return path, True

    def _path(self, subject: str) -> Path:
        """The contract of a subject."""
        topic, _, type_name = subject.rpartition("-")
        return self._root / topic / f"{type_name}.avsc"

    def _remember(self, schema: Any) -> int:
        number = schema_id(schema)
        if identity(self._known.setdefault(number, schema)) != identity(schema):
            what = f"two schemas in {self._root} have the id {number}, 31 bits of their hashes; one is {schema['name']}"
            raise IncompatibleSchemaError(what, remedy='add a property to one of the two, such as "version": 2')
        return number

    @contextmanager
    def _writing(self, subject: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"schema {subject} is not in {self._root}, which cannot be written"
            remedy = "run `choreo schema write` where it can be, and ship the folder with the service"
            raise ConfigurationError(what, why=error.strerror or str(error), remedy=remedy) from None


def _load(path: Path) -> Any:
    try:
        schema = json.loads(path.read_bytes())
        identity(schema)
        return schema
    except ValueError as error:
        raise ConfigurationError(f"{path} is no Avro schema", why=str(error), remedy="mend or remove it") from None


def _history(contract: Path) -> list[Schema]:
    versions = [*_numbered(contract).values()]
    newest = [_load(contract)] if contract.exists() else []
    return versions if newest and _has(versions, newest[0]) else versions + newest


def _add(contract: Path, schema: Schema) -> None:
    """Make the schema a numbered version unless it is one; who finds a number taken looks again."""
    while not _has((numbered := _numbered(contract)).values(), schema):
        number = max(numbered, default=0) + 1
        _link(contract.parent / "versions" / f"{contract.stem}.{number}.avsc", schema)


def _numbered(contract: Path) -> dict[int, Schema]:
    """The numbered versions, oldest first. No part of a type's name begins with a digit, so all files are its own."""
    files = (contract.parent / "versions").glob(f"{contract.stem}.[0-9]*.avsc")
    return {number: _load(path) for number, path in sorted((int(path.stem.rpartition(".")[2]), path) for path in files)}


def _has(versions: Iterable[Schema], schema: Schema) -> bool:
    return identity(schema) in map(identity, versions)


def _aside(path: Path, schema: Schema) -> Path:
    """A hidden file beside the path that holds the schema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with aside.open("x", encoding="utf-8") as file:
        file.write(text(schema))
        file.flush()
        os.fsync(file.fileno())
    return aside


def _link(path: Path, schema: Schema) -> None:
    """Create the file whole, unless it is there."""
    aside = _aside(path, schema)
    try:
        with suppress(FileExistsError):
            path.hardlink_to(aside)
    finally:
        aside.unlink()
