"""`choreo publish`: events from the command line or a file, checked before any of them is published."""

from __future__ import annotations

import sys
from typing import Annotated

import pydantic
import typer
from rich.console import Console

from choreo.cli.common import LogOption, RegistryOption, run_async, settings_with
from choreo.cli.load import event_classes
from choreo.errors import ChoreoError, ConfigurationError
from choreo.events import Event, origin_of
from choreo.runtime.settings import Settings

EXAMPLES = """Examples:

choreo publish OrderPlaced -m services.shop --json '{"order_id": "o-1"}'

choreo publish OrderPlaced -m services.shop --file orders.ndjson --skip-invalid

choreo publish AccountVerified -m services.onboarding --correlation-id 01a2... --json '{"account_id": "a-1", ...}'"""

_SOURCE = "choreo-cli"
_CHUNK = 500
_SHOWN = 20


def publish(
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type name.")],
    text: Annotated[str | None, typer.Option("--json", metavar="JSON", help="One event's fields.")] = None,
    file: Annotated[
        typer.FileBinaryRead | None, typer.Option(metavar="PATH", help="Events, one a line; - is stdin.")
    ] = None,
    modules: Annotated[
        list[str] | None, typer.Option("--module", "-m", help="Where it is; else CHOREO_MODULES.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The saga that they go on with; new ones unless given.")
    ] = None,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Publish a bad file's valid lines.")] = False,
    log: LogOption = None,
    registry: RegistryOption = None,
) -> None:
    """Publish events and print the correlation id of each, one a line.

    All lines are checked first: of a file with a bad line nothing is published, and the bad lines are named.
    """
    if (text is None) == (file is None):
        raise ConfigurationError("no event is given, or two", remedy="give either --json '{...}' or --file PATH")
    cls = _class(type_name, modules or [])
    valid = _valid(cls, [(text or "").encode()] if file is None else file.read().splitlines(), skip_invalid)
    from choreo.observe.exporting import exporting

    with exporting([_SOURCE]):
        run_async(_publish(cls, valid, correlation_id or None, settings_with(log=log, registry=registry)))


def _class(type_name: str, modules: list[str]) -> type[Event]:
    classes = event_classes(modules)
    found = list(dict.fromkeys(origin_of(cls) for cls in classes if cls.contract.type_name == type_name))
    if len(found) != 1:
        names = ", ".join(sorted(f"{cls.contract.type_name} in {cls.__module__}" for cls in found or classes))
        what = f"several event classes are {type_name!r}" if found else f"no event class is {type_name!r}"
        raise ConfigurationError(what, remedy=f"name one module by -m: {names}" if found else f"there are: {names}")
    return found[0]


def _valid(cls: type[Event], lines: list[bytes], skip_invalid: bool) -> list[bytes]:
    """The lines that are events; what is wrong with the others (the first of them) is said."""
    valid, invalid = list[bytes](), 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cls.model_validate_json(line)
            valid.append(line)
        except pydantic.ValidationError as error:
            invalid += 1
            if invalid <= _SHOWN:
                print(f"line {number}: {_faults(error)}", file=sys.stderr)
    if invalid > _SHOWN:
        print(f"... and {invalid - _SHOWN} more", file=sys.stderr)
    if invalid and not skip_invalid:
        raise ChoreoError(f"{invalid} of {len(valid) + invalid} events are not valid, so nothing is published")
    return valid


def _faults(error: pydantic.ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    text = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in faults)
    return text.replace(" at line 1 column ", " at column ")  # pydantic counts lines in the event, not in the file


async def _publish(cls: type[Event], lines: list[bytes], correlation_id: str | None, settings: Settings) -> None:
    from rich.progress import Progress

    from choreo.runtime.bus import connect

    chunks = [lines[at : at + _CHUNK] for at in range(0, len(lines), _CHUNK)]
    shown, ids_too = sys.stderr.isatty() and len(chunks) > 1, sys.stdout.isatty()  # then the ids go above the bar
    with Progress(console=Console(stderr=True), transient=True, disable=not shown, redirect_stdout=ids_too) as bar:
        async with connect(settings, source=_SOURCE) as bus:
            for chunk in bar.track(chunks, description="publishing"):
                events = [cls.model_validate_json(line) for line in chunk]
                sagas = await bus.publish_many(events, correlation_id=correlation_id)
                print("\n".join(sagas), flush=True)
