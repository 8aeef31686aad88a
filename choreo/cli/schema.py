"""`choreo schema`: contracts made from event classes, checked against them, and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.wire.avro import identity, normal, schema_id, text
from choreo.wire.compat import Mode, check
from choreo.wire.folder import FolderRegistry
from choreo.wire.registry import Registry, open_registry
from choreo.wire.schema import schema_of

app = typer.Typer(name="schema", help="Event contracts: write, check and show them.", no_args_is_help=True)

Targets = Annotated[list[str] | None, typer.Argument(metavar="MODULE[:SERVICE]...", help="Where the events are.")]
Address = Annotated[
    str,
    typer.Option("--registry", "--schemas", envvar="CHOREO_REGISTRY", help="Folder of .avsc files, or http(s)://."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Finding(NamedTuple):
    """One disagreement about a contract: `kind` is `missing`, `drift` or the compatibility rule that is broken."""

    event: str
    topic: str
    kind: str
    path: str
    reason: str


@app.command("write")
def write_command(targets: Targets = None, registry: Address = "schemas", as_json: AsJson = False) -> None:
    """Write the .avsc contract of every event class; the one before is kept as a version."""
    written = write_contracts(_classes(targets), _folder(registry))
    if as_json:
        typer.echo(json.dumps([{"path": str(path), "changed": changed} for path, changed in written]))
        return
    for path, changed in written:
        typer.echo(f"{'written' if changed else 'unchanged'} {path}")


@app.command("check")
def check_command(
    targets: Targets = None,
    registry: Address = "schemas",
    mode: Annotated[Mode, typer.Option(help="Who must be able to read whose data.")] = Mode.BACKWARD_TRANSITIVE,
    as_json: AsJson = False,
) -> None:
    """Fail if a class and its contract differ, or if a change breaks readers."""
    classes = _classes(targets)
    findings = asyncio.run(find(classes, open_registry(registry), mode))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            where = f" field {finding.path}" if finding.path else ""
            typer.echo(f"{finding.topic}/{finding.event}:{where} {finding.reason} [{finding.kind}]")
        typer.echo(f"{len(classes)} events, {len(findings)} findings")
    raise typer.Exit(1 if findings else 0)


@app.command("show")
def show_command(
    type_name: Annotated[str, typer.Argument(metavar="TYPE")], registry: Address = "schemas", as_json: AsJson = False
) -> None:
    """Print the contract of an event type."""
    found = contracts_of(type_name, _folder(registry))
    if not found:
        raise ConfigurationError(f"{registry} has no contract of {type_name}", remedy="run `choreo schema write`")
    for topic, schema in found:
        if as_json:
            typer.echo(json.dumps({"topic": topic, "id": schema_id(schema), "schema": schema}))
        else:
            typer.echo(text(schema), nl=False)


def write_contracts(classes: list[type[Event]], folder: FolderRegistry) -> list[tuple[Path, bool]]:
    """Write the contract of each class; returns the paths, and whether each file changed."""
    return [folder.write_contract(cls.contract.topic, cls.contract.type_name, schema_of(cls)) for cls in classes]


async def find(classes: list[type[Event]], registry: Registry, mode: Mode) -> list[Finding]:
    """What is wrong between the classes and their contracts, and between the classes and all versions."""
    try:
        return [finding for cls in classes for finding in await _find_in(cls, registry, mode)]
    finally:
        await registry.aclose()


async def _find_in(cls: type[Event], registry: Registry, mode: Mode) -> list[Finding]:
    topic, name = cls.contract.topic, cls.contract.type_name
    schema, versions = schema_of(cls), await registry.versions(f"{topic}-{name}")
    newest = versions[-1] if versions else None
    contract = registry.contract(topic, name) if isinstance(registry, FolderRegistry) else newest
    if contract is None:
        return [Finding(name, topic, "missing", "", "has no contract (run `choreo schema write`)")]
    drift = [Finding(name, topic, "drift", path, reason) for path, reason in differences(contract, schema)]
    others = [version for version in versions if identity(version) != identity(schema)]
    broken = [
        Finding(name, topic, fault.rule, fault.path, f"{fault.reason} ({fault.direction}, version {fault.version})")
        for fault in check(schema, others, mode)
    ]
    return drift + broken


def differences(contract: Any, schema: Any) -> Iterator[tuple[str, str]]:
    """Where a contract and a class's schema differ: paths, each with what the two say."""
    said, meant = dict(_facts(normal(contract), "")), dict(_facts(normal(schema), ""))
    for path in sorted(said.keys() | meant.keys()):
        ours, theirs = meant.get(path), said.get(path)
        if ours is None:
            yield path, f"is in the contract ({theirs}), not in the class"
        elif theirs is None:
            yield path, f"is in the class ({ours}), not in the contract"
        elif ours != theirs:
            yield path, f"is {ours} in the class, {theirs} in the contract"


def contracts_of(type_name: str, folder: FolderRegistry) -> list[tuple[str, Any]]:
    """The contracts of a type, with their topics."""
    return [(topic, schema) for topic, name, schema in folder.contracts() if name == type_name]


def _classes(targets: list[str] | None) -> list[type[Event]]:
    from choreo.cli.load import event_classes  # imports the user's modules, which `show` does not need

    return event_classes(targets or [])


def _folder(address: str) -> FolderRegistry:
    registry = open_registry(address)
    if not isinstance(registry, FolderRegistry):
        raise ConfigurationError(f"{address} is no folder", remedy="name one: --registry schemas/")
    return registry


def _facts(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """A schema in normal form as flat pairs of a path and what is said there."""
    if isinstance(schema, list):
        kinds = [branch if isinstance(branch, str) else branch.get("name", branch["type"]) for branch in schema]
        yield path, f"a union of {', '.join(kinds)}"
        for kind, branch in zip(kinds, schema, strict=True):
            if not isinstance(branch, str):
                yield from _facts(branch, f"{path}<{kind}>")
        return
    if isinstance(schema, str):
        yield path, schema
        return
    inner = {"fields", "items", "values"}
    yield path, " ".join(f"{key}={json.dumps(schema[key])}" for key in sorted(schema) if key not in inner)
    for field in schema.get("fields", ()):
        deeper = f"{path}.{field['name']}" if path else field["name"]
        yield from _facts(field["type"], deeper)
        for key in sorted(field.keys() - {"name", "type"}):
            yield f"{deeper} ({key})", json.dumps(field[key])
    if "items" in schema:
        yield from _facts(schema["items"], f"{path}[]")
    if "values" in schema:
        yield from _facts(schema["values"], f"{path}{{}}")
