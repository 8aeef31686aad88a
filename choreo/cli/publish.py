"""`choreo publish`: events from the command line or a file, checked before any of them is published."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Annotated

import pydantic
import typer

from choreo.cli.common import LogOption, RegistryOption, console, run_async, settings_with
from choreo.cli.load import event_classes, named
from choreo.errors import ChoreoError, ConfigurationError
from choreo.events import Event

if TYPE_CHECKING:
    from choreo.runtime.settings import Settings

EXAMPLES = """Examples:

choreo publish OrderPlaced -m services.shop --json '{"order_id": "o-1"}'

choreo publish OrderPlaced -m services.shop --file orders.ndjson --skip-invalid"""

_CHUNK = 500
_SHOWN = 20


def publish(
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type name.")],
    text: Annotated[str | None, typer.Option("--json", metavar="JSON", help="One event's fields.")] = None,
    file: Annotated[str | None, typer.Option(metavar="PATH", help="Events, one a line; - is standard input.")] = None,
    modules: Annotated[
        list[str] | None, typer.Option("--module", "-m", help="Where its class is; CHOREO_MODULES unless given.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Go on with this saga instead of starting new ones.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Publish the valid lines of a bad file.")
    ] = False,
    log: LogOption = None,
    registry: RegistryOption = None,
) -> None:
    """Publish events and print the correlation id of each, one a line.

    All lines are checked first: of a file with a bad line nothing is published, and the bad lines are named.
    """
    if (text is None) == (file is None):
        raise ConfigurationError("no event is given, or two", remedy="give either --json '{...}' or --file PATH")
    cls = _class(type_name, named(modules or []))
    with io.BytesIO(text.encode().replace(b"\n", b" ")) if text is not None else _opened(file or "-") as lines:
        valid, invalid = _check(cls, lines)
        if invalid and not skip_invalid:
            raise ChoreoError(f"{invalid} of {valid + invalid} events are not valid, so nothing is published")
        events = (found for _, found in _parsed(cls, lines) if isinstance(found, Event))
        run_async(_publish(events, valid, settings_with(log=log, registry=registry), correlation_id))


def _class(type_name: str, modules: list[str]) -> type[Event]:
    classes = event_classes(modules)
    found = [cls for cls in classes if cls.contract.type_name == type_name]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join(cls.__module__ for cls in found)
        raise ConfigurationError(f"several classes are {type_name}", why=f"in {places}", remedy="name one module by -m")
    names = sorted({cls.contract.type_name for cls in classes})
    guess = get_close_matches(type_name, names, 1)
    remedy = f"did you mean {guess[0]}?" if guess else f"there are: {', '.join(names)}"
    raise ConfigurationError(f"no event {type_name!r} in {', '.join(modules)}", remedy=remedy)


def _opened(file: str) -> IO[bytes]:
    """The file, which is read twice: what cannot be (a pipe) is spooled."""
    try:
        stream: IO[bytes] = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read", why=error.strerror or str(error)) from error
    if stream.seekable():
        return stream
    spool: IO[bytes] = SpooledTemporaryFile(max_size=64_000_000)  # noqa: SIM115 - same
    with stream:
        shutil.copyfileobj(stream, spool)
    return spool


def _parsed(cls: type[Event], lines: IO[bytes]) -> Iterator[tuple[int, Event | pydantic.ValidationError]]:
    """Each line that is not blank: its number, and its event or what is wrong with it."""
    lines.seek(0)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, cls.model_validate_json(line)
            except pydantic.ValidationError as error:
                yield number, error


def _check(cls: type[Event], lines: IO[bytes]) -> tuple[int, int]:
    """Counts valid and invalid events, and says what is wrong with the first of these."""
    valid = invalid = 0
    for number, found in _parsed(cls, lines):
        if isinstance(found, Event):
            valid += 1
            continue
        invalid += 1
        if invalid <= _SHOWN:
            print(f"line {number}: {_faults(found)}", file=sys.stderr)
    if invalid > _SHOWN:
        print(f"... and {invalid - _SHOWN} more", file=sys.stderr)
    return valid, invalid


def _faults(error: pydantic.ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    text = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in faults)
    return text.replace(" at line 1 column ", " at column ")  # pydantic counts lines in the event, not in the file


async def _publish(events: Iterator[Event], total: int, settings: Settings, correlation_id: str | None) -> None:
    from rich.progress import Progress

    from choreo.runtime.bus import connect

    done = 0
    shown = sys.stderr.isatty() and total > _CHUNK
    both = sys.stdout.isatty()  # then the ids are printed above the bar; else they must go to where stdout goes
    with Progress(console=console(stderr=True), transient=True, disable=not shown, redirect_stdout=both) as progress:
        task = progress.add_task("publishing", total=total)
        try:
            async with connect(settings, source="choreo-cli") as bus:
                while chunk := list(islice(events, _CHUNK)):
                    if correlation_id is None:
                        sagas = await bus.publish_many(chunk)
                    else:
                        sagas = [await bus.publish(event, correlation_id=correlation_id) for event in chunk]
                    print("\n".join(sagas), flush=True)
                    done += len(chunk)
                    progress.update(task, completed=done)
        except ChoreoError:
            if done:
                print(f"{done} of {total} events were published before this", file=sys.stderr)
            raise
