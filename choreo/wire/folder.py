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
import tempfile
from pathlib import Path
from typing import Any

from choreo.errors import ConfigurationError, IncompatibleSchemaError, SchemaNotFoundError
from choreo.wire.avro import identity, name_of, schema_id, text
from choreo.wire.registry import Schema


class FolderRegistry:
    """A registry in a folder, which need not exist before something is registered."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[int, Any] = {}

    def address(self, schema_id: int) -> str:
        """A URN, for a folder has no address that others could open."""
        return f"urn:choreo:schema:{schema_id}"

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema; adds a version, and the contract if it is the first one."""
        topic, _, type_name = subject.rpartition("-")
        wanted = identity(schema)
        try:
            while wanted not in map(identity, self.history(topic, type_name)):
                self._append(topic, type_name, schema)
        except OSError as error:
            raise self._read_only(topic, type_name, error) from None
        return self._remember(schema)

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id; the folder is read again when the id is new."""
        if schema_id not in self._known:
            for path in sorted(self._root.glob("*/**/*.avsc")):
                self._remember(_load(path))
        try:
            return self._known[int(schema_id)]
        except (KeyError, ValueError):
            raise SchemaNotFoundError(
                f"schema {schema_id} is not in the folder {self._root}",
                remedy="copy its .avsc file there, or point CHOREO_REGISTRY at the registry that its writer uses",
            ) from None

    async def versions(self, subject: str) -> list[Schema]:
        """All versions, oldest first."""
        topic, _, type_name = subject.rpartition("-")
        return self.history(topic, type_name)

    async def aclose(self) -> None:
        """Nothing is open."""

    def contract(self, topic: str, type_name: str) -> Schema | None:
        """The contract of a type, None if there is no file."""
        path = self._contract_path(topic, type_name)
        return _load(path) if path.exists() else None

    def history(self, topic: str, type_name: str) -> list[Schema]:
        """The numbered versions, then the contract if it is none of them."""
        versions = [_load(path) for path in self._numbered(topic, type_name)]
        contract = self.contract(topic, type_name)
        if contract is not None and identity(contract) not in map(identity, versions):
            versions.append(contract)
        return versions

    def write_contract(self, topic: str, type_name: str, schema: Schema) -> Path:
        """Make this the contract, and keep the one before as a version.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        path = self._contract_path(topic, type_name)
        try:
            self._keep_contract(topic, type_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(_aside(path.parent, schema), path)
        except OSError as error:
            raise self._read_only(topic, type_name, error) from None
        return path

    def _append(self, topic: str, type_name: str, schema: Schema) -> None:
        """Add the next version once; somebody else may be faster, so the caller looks again."""
        contract = self._contract_path(topic, type_name)
        if not contract.exists() and not self._numbered(topic, type_name):
            _link(contract, schema)
            return
        self._keep_contract(topic, type_name)
        if identity(schema) not in map(identity, self.history(topic, type_name)):
            _link(self._next_path(topic, type_name), schema)

    def _keep_contract(self, topic: str, type_name: str) -> None:
        contract = self.contract(topic, type_name)
        while contract is not None:
            if identity(contract) in map(identity, map(_load, self._numbered(topic, type_name))):
                return
            _link(self._next_path(topic, type_name), contract)

    def _contract_path(self, topic: str, type_name: str) -> Path:
        return self._root / topic / f"{type_name}.avsc"

    def _numbered(self, topic: str, type_name: str) -> list[Path]:
        found = {}
        for path in (self._root / topic / "versions").glob(f"{type_name}.*.avsc"):
            name, _, number = path.stem.rpartition(".")
            if name == type_name and number.isdigit():
                found[int(number)] = path
        return [found[number] for number in sorted(found)]

    def _next_path(self, topic: str, type_name: str) -> Path:
        numbered = self._numbered(topic, type_name)
        last = int(numbered[-1].stem.rpartition(".")[2]) if numbered else 0
        return self._root / topic / "versions" / f"{type_name}.{last + 1}.avsc"

    def _remember(self, schema: Any) -> int:
        number = schema_id(schema)
        other = self._known.setdefault(number, schema)
        if identity(other) != identity(schema):
            raise IncompatibleSchemaError(
                f"{name_of(schema)} and {name_of(other)} have the same schema id {number} in {self._root}",
                why="ids are 31 bits of a hash and these two collide",
                remedy='add a property to one of the two schemas, such as "version": 2',
            )
        return number

    def _read_only(self, topic: str, type_name: str, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"schema {type_name} of topic {topic} is not in {self._root}, which cannot be written",
            why=error.strerror or str(error),
            remedy="run `choreo schema write` where it can be, and ship the folder with the service",
        )


def _load(path: Path) -> Any:
    try:
        schema = json.loads(path.read_bytes())
        identity(schema)
        return schema
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} is no Avro schema", why=f"{type(error).__name__}: {error}", remedy="mend or remove the file"
        ) from None


def _aside(folder: Path, schema: Schema) -> str:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text(schema))
        file.flush()
        os.fsync(handle)
    os.chmod(name, 0o644)  # mkstemp gives 0600, but a contract is for everybody
    return name


def _link(path: Path, schema: Schema) -> None:
    """Create the file whole, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = _aside(path.parent, schema)
    try:
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
