"""`choreo schema`: contracts made from event classes, checked against them, and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer

from choreo.cli.common import JsonOption, Modules
from choreo.errors import ConfigurationError
from choreo.events import Event, origin_of
from choreo.wire.avro import identity, normal, schema_id, text
from choreo.wire.compat import Mode, check
from choreo.wire.folder import FolderRegistry
from choreo.wire.registry import Registry, open_registry
from choreo.wire.schema import schema_of

app = typer.Typer(name="schema", help="Event contracts: write, check and show them.", no_args_is_help=True)

_HELP = "Folder of .avsc files, or http(s)://."
Address = Annotated[str, typer.Option("--registry", "--schemas", envvar="CHOREO_REGISTRY", help=_HELP)]
TypeName = Annotated[str, typer.Argument(metavar="TYPE")]
Rule = Annotated[Mode, typer.Option("--mode", help="Who must be able to read whose data.")]
_DEFAULT = Mode.BACKWARD_TRANSITIVE


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
    for cls in dict.fromkeys(map(origin_of, _classes(modules))):
        for topic in cls.contract.topics:
            path, changed = folder.write_contract(topic, cls.contract.type_name, schema_of(cls))
            rows.append({"path": str(path), "changed": changed})
    lines = [f"{'written' if row['changed'] else 'unchanged'} {row['path']}" for row in rows]
    typer.echo(json.dumps(rows) if as_json else "\n".join(lines))


@app.command("check")
def check_command(
    modules: Modules = None, registry: Address = "schemas", mode: Rule = _DEFAULT, as_json: JsonOption = False
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
    found = []
    try:
        for event, topic in [(cls, topic) for cls in classes for topic in cls.contract.topics]:
            name = event.contract.type_name
            versions = await registry.versions(f"{topic}-{name}")
            newest = versions[-1] if versions else None
            contract = registry.contract(topic, name) if isinstance(registry, FolderRegistry) else newest
            found += [Finding(name, topic, *fault) for fault in _faults(schema_of(event), contract, versions, mode)]
    finally:
        await registry.aclose()
    return found


def _faults(schema: Any, contract: Any, versions: list[Any], mode: Mode) -> Iterator[tuple[str, str, str]]:
    """The kind, path and reason of what is wrong with one class's schema."""
    if contract is None:
        yield "missing", "", "has no contract (run `choreo schema write`)"
        return
    for path, reason in differences(contract, schema):
        yield "drift", path, reason
    for fault in check(schema, [one for one in versions if identity(one) != identity(schema)], mode):
        yield fault.rule, fault.path, f"{fault.reason} ({fault.direction}, version {fault.version})"


def differences(contract: Any, schema: Any) -> Iterator[tuple[str, str]]:
    """The fields of which a contract and a class's schema say different things, and what; no name: the record itself."""
    said, meant = (_fields(normal(one)) for one in (contract, schema))
    for name in sorted(said.keys() | meant.keys()):
        if said.get(name) != meant.get(name):
            yield name, f"is {meant.get(name, 'absent')} in the class, {said.get(name, 'absent')} in the contract"


def _fields(schema: Any) -> dict[str, str]:
    said = {"": schema | {"fields": []}}
    for field in schema["fields"]:
        said[field["name"]] = {key: value for key, value in field.items() if key != "name"}
    return {name: json.dumps(part, sort_keys=True) for name, part in said.items()}


def _classes(modules: list[str] | None) -> list[type[Event]]:
    from choreo.cli.load import event_classes  # imports the user's modules, which `show` does not need

    return event_classes(modules or [])


def _folder(address: str) -> FolderRegistry:
    registry = open_registry(address)
    if not isinstance(registry, FolderRegistry):
        raise ConfigurationError(f"{address} is no folder", remedy="name one: --registry schemas/")
    return registry
