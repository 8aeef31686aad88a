"""`choreo schema`: contracts made from event classes, checked against them, and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer

from choreo.cli.common import JsonOption, Modules
from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.wire.avro import identity, normal, schema_id, text
from choreo.wire.compat import Mode, check
from choreo.wire.folder import FolderRegistry
from choreo.wire.registry import Registry, open_registry
from choreo.wire.schema import schema_of

app = typer.Typer(name="schema", help="Event contracts: write, check and show them.", no_args_is_help=True)

_HELP = "Folder of .avsc files, or http(s)://."
Address = Annotated[str, typer.Option("--registry", "--schemas", envvar="CHOREO_REGISTRY", help=_HELP)]
TypeName = Annotated[str, typer.Argument(metavar="TYPE")]
Compatibility = Annotated[Mode, typer.Option("--mode", help="Who must be able to read whose data.")]


class Finding(NamedTuple):
    """One disagreement about a contract: `kind` is `missing`, `drift` or the compatibility rule that is broken."""

    event: str
    topic: str
    kind: str
    path: str
    reason: str


@app.command("write")
def write_command(modules: Modules = None, registry: Address = "schemas", as_json: JsonOption = False) -> None:
    """Write the .avsc contract of every event class; the one before is kept as a version."""
    folder, rows = _folder(registry), []
    for cls in _classes(modules):
        path, changed = folder.write_contract(cls.contract.topic, cls.contract.type_name, schema_of(cls))
        rows.append({"path": str(path), "changed": changed})
    lines = [f"{'written' if row['changed'] else 'unchanged'} {row['path']}" for row in rows]
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines))


@app.command("check")
def check_command(
    modules: Modules = None,
    registry: Address = "schemas",
    mode: Compatibility = Mode.BACKWARD_TRANSITIVE,
    as_json: JsonOption = False,
) -> None:
    """Fail if a class and its contract differ, or if a change breaks readers."""
    classes = _classes(modules)
    findings = asyncio.run(find(classes, open_registry(registry), mode))
    lines = [f"{len(classes)} events, {len(findings)} findings"]
    for event, topic, kind, path, reason in reversed(findings):
        lines.insert(0, f"{topic}/{event}:{path and f' field {path}'} {reason} [{kind}]")
    typer.echo(json.dumps([finding._asdict() for finding in findings]) if as_json else "\n".join(lines))
    raise typer.Exit(1 if findings else 0)


@app.command("show")
def show_command(type_name: TypeName, registry: Address = "schemas", as_json: JsonOption = False) -> None:
    """Print the contract of an event type."""
    found = _folder(registry).contracts(type_name)
    if not found:
        raise ConfigurationError(f"{registry} has no contract of {type_name}", remedy="run `choreo schema write`")
    for topic, schema in found:
        row = {"topic": topic, "id": schema_id(schema), "schema": schema}
        typer.echo(json.dumps(row) + "\n" if as_json else text(schema), nl=False)


async def find(classes: list[type[Event]], registry: Registry, mode: Mode) -> list[Finding]:
    """What is wrong between the classes and their contracts, and between the classes and all versions."""
    try:
        return [
            Finding(cls.contract.type_name, cls.contract.topic, *fault)
            for cls in classes
            for fault in await _faults(cls, registry, mode)
        ]
    finally:
        await registry.aclose()


async def _faults(cls: type[Event], registry: Registry, mode: Mode) -> list[tuple[str, str, str]]:
    """The kind, path and reason of what is wrong with one class."""
    topic, name, schema = cls.contract.topic, cls.contract.type_name, schema_of(cls)
    versions = await registry.versions(f"{topic}-{name}")
    newest = versions[-1] if versions else None
    contract = registry.contract(topic, name) if isinstance(registry, FolderRegistry) else newest
    if contract is None:
        return [("missing", "", "has no contract (run `choreo schema write`)")]
    others = [version for version in versions if identity(version) != identity(schema)]
    return [("drift", path, reason) for path, reason in differences(contract, schema)] + [
        (fault.rule, fault.path, f"{fault.reason} ({fault.direction}, version {fault.version})")
        for fault in check(schema, others, mode)
    ]


def differences(contract: Any, schema: Any) -> Iterator[tuple[str, str]]:
    """Where a contract and a class's schema differ: paths, each with what the two say."""
    roots = ({"fields": [{"name": "", "type": normal(one)}]} for one in (contract, schema))
    said, meant = (dict(_facts(root, "")) for root in roots)
    for path in sorted(said.keys() | meant.keys()):
        if said.get(path) != meant.get(path):
            yield path, f"is {meant.get(path, 'absent')} in the class, {said.get(path, 'absent')} in the contract"


def _facts(part: Any, path: str) -> Iterator[tuple[str, str]]:
    """What a schema says of its fields and of those inside them: paths, each with JSON without the deeper fields."""
    for branch in part if isinstance(part, list) else []:
        yield from _facts(branch, f"{path}<{branch['name']}>" if "fields" in branch else path)
    if isinstance(part, dict):
        for inside in part.keys() & {"items", "values"}:
            yield from _facts(part[inside], path)
        for field in part.get("fields", ()):
            inner = f"{path}.{field['name']}".strip(".")
            said = json.dumps({key: value for key, value in field.items() if key != "name"}, sort_keys=True)
            yield inner, json.dumps(json.loads(said, object_hook=_without_fields))
            yield from _facts(field["type"], inner)


def _without_fields(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "fields"}


def _classes(modules: list[str] | None) -> list[type[Event]]:
    from choreo.cli.load import event_classes  # imports the user's modules, which `show` does not need

    return event_classes(modules or [])


def _folder(address: str) -> FolderRegistry:
    registry = open_registry(address)
    if not isinstance(registry, FolderRegistry):
        raise ConfigurationError(f"{address} is no folder", remedy="name one: --registry schemas/")
    return registry
