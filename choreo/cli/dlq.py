"""`choreo dlq`: what has failed for good, shown, and given back to the one service that failed."""

from __future__ import annotations

import getpass
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from choreo.cli import common
from choreo.durations import seconds
from choreo.errors import ConfigurationError

if TYPE_CHECKING:
    from choreo.dlq import DeadLetters, Pace, Selection
    from choreo.log import Log, Record
    from choreo.runtime.settings import Settings
    from choreo.wire import Registry

app = typer.Typer(
    help="Dead letters: list, show, redrive, edit, discard.", no_args_is_help=True, rich_markup_mode="markdown"
)

Text = str | None
Texts = list[str] | None
States = Literal["open", "redriven", "discarded", "any"]


@dataclass(frozen=True)
class _Asked:
    """What commands are told: where things are, which dead letters are meant, who resolves them and why."""

    settings: Settings
    topics: Sequence[str]
    chosen: Selection
    as_json: bool
    why: str
    by: Text
    dry_run: bool


def _asked(
    ids: Annotated[Texts, typer.Argument(metavar="ID", help="Their first characters are enough.")] = None,
    service: Annotated[Text, typer.Option(help="Of this service; who shall handle other systems' ones.")] = None,
    fingerprint: Annotated[str, typer.Option(help="Of this group.")] = "",
    handler: Annotated[Text, typer.Option(help="Of this handler.")] = None,
    type_name: Annotated[Text, typer.Option("--type", help="Of this event type.")] = None,
    key: Annotated[Text, typer.Option(help="Of this key.")] = None,
    since: Annotated[Text, typer.Option(metavar="10m", help="Failed since.")] = None,
    topics: Annotated[Texts, typer.Option("--topic", help="Another system's topic; else dlq.*")] = None,
    log: common.LogOption = None,
    registry: common.RegistryOption = None,
    as_json: common.JsonOption = False,
    why: Annotated[str, typer.Option(help="The reason, kept with the records.")] = "",
    by: Annotated[Text, typer.Option(help="Who does this; the user's name unless given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
) -> _Asked:
    from choreo.dlq import Selection

    since_ms = 0 if since is None else int((time.time() - seconds(since)) * 1000)
    chosen = Selection(
        ids=tuple(ids or ()), service=service, fingerprint=fingerprint, handler=handler, type_name=type_name, key=key,
        since_ms=since_ms,
    )  # fmt: skip
    return _Asked(common.settings_with(log=log, registry=registry), topics or [], chosen, as_json, why, by, dry_run)


def _command(name: str, *, example: str, acts: bool = False) -> Callable[[Callable[..., None]], None]:
    """Registers a command with the options of `_asked`; it gets what they say as its first argument."""

    def register(command: Callable[..., None]) -> None:
        shared = dict(inspect.signature(_asked, eval_str=True).parameters)
        for option in () if acts else ("why", "by", "dry_run"):
            del shared[option]
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        def run(**given: Any) -> None:
            command(_asked(**{name: given.pop(name) for name in shared}), **given)

        both = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared.values())]
        vars(run)["__signature__"] = inspect.Signature(both)  # typer reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
        app.command(name, help=command.__doc__, epilog=f"Example: {example}")(run)

    return register


@_command("list", example="choreo dlq list --service payments --since 1h")
def list_(
    asked: _Asked,
    every: Annotated[bool, typer.Option("--all", help="Single ones, not groups.")] = False,
    state: Annotated[States, typer.Option(help="What became of them.")] = "open",
) -> None:
    """What has failed for good, by what went wrong; the newest first."""
    chosen = replace(asked.chosen, state=None if state == "any" else state)
    common.run_async(_list(replace(asked, chosen=chosen), every=every))


@_command("stats", example="choreo dlq stats --json")
def stats(asked: _Asked) -> None:
    """What became of the dead letters of each service and group."""
    common.run_async(_list(asked, counts=True))


async def _list(asked: _Asked, *, every: bool = False, counts: bool = False) -> None:
    from choreo.cli import dlq_view as view

    async with _opened(asked) as (letters, _):
        found = letters.select(asked.chosen)[::-1]
        if every:
            view.letters(letters.fold, found, as_json=asked.as_json)
        else:
            view.groups(letters.fold, found, counts=counts, as_json=asked.as_json)
        if letters.fold.foreign:
            typer.echo(f"{letters.fold.foreign:,} records do not say why they are there", err=True)


@_command("show", example="choreo dlq show 4f2a")
def show(asked: _Asked) -> None:
    """The event of a dead letter, the error, where the original lies, and what has been done about it."""
    from choreo.cli import dlq_view as view
    from choreo.wire import Codec

    async def run() -> None:
        async with _opened(asked, values=True) as (letters, log), _registry(asked) as registry:
            for letter in letters.select(asked.chosen):
                await view.page(letter, letters.fold, log, Codec(registry), as_json=asked.as_json)

    common.run_async(run())


@_command("redrive", acts=True, example="choreo dlq redrive --fingerprint 9c1f --why 'gateway is back' --canary 1")
def redrive(
    asked: _Asked,
    canary: Annotated[int, typer.Option(min=0, help="So many first; the others if these went well.")] = 0,
    rate: Annotated[float | None, typer.Option(min=0.001, help="At most so many a second.")] = None,
    max_failures: Annotated[float | None, typer.Option(min=0, max=1, help="Stop above this share.")] = None,
) -> None:
    """Let the service that failed handle them again: those named, of one group, or that fit all filters.

    Nobody else sees them; what waits behind a key follows. Interrupted, run it again: it goes on.
    """
    from choreo.dlq import Pace

    common.run_async(_resolve(asked, "redriven", Pace(canary=canary, rate=rate, max_failures=max_failures)))


@_command("discard", acts=True, example="choreo dlq discard 4f2a --why 'a test order'")
def discard(asked: _Asked) -> None:
    """Never handle them; what waits behind their keys goes on."""
    common.run_async(_resolve(asked, "discarded"))


@_command("edit", acts=True, example="choreo dlq edit 4f2a --set total=12 --why 'a typing error'")
def edit(
    asked: _Asked,
    fields: Annotated[Texts, typer.Option("--set", metavar="FIELD=VALUE", help="VALUE is JSON.")] = None,
    value: Annotated[Path | None, typer.Option(metavar="FILE", help="All data instead, as JSON.")] = None,
) -> None:
    """Redrive one with other data, which is checked against the schema."""
    if len(asked.chosen.ids) != 1 or not (fields or value):
        remedy = "name its id, and what changes by --set or --value"
        raise ConfigurationError("one dead letter is edited at a time", remedy=remedy)
    common.run_async(_edit(asked, fields or [], value))


async def _edit(asked: _Asked, fields: list[str], value: Path | None) -> None:
    from choreo.cli import dlq_view as view
    from choreo.dlq import original
    from choreo.dlq.edit import data_of, edited, with_fields
    from choreo.wire import Codec

    async with _opened(asked, values=True) as (letters, log), _registry(asked) as registry:
        codec = Codec(registry)
        changed: dict[str, Record] = {}
        for letter in letters.select(asked.chosen):
            record = await original(log, letter)
            data, why_not = await data_of(codec, record)
            if why_not and not value:
                raise ConfigurationError("no field can be set", why=why_not, remedy="give all data: --value FILE")
            new = with_fields(_parsed(value) if value else data, fields)
            changed[letter.id] = await edited(record, new, letter.type_name, codec, registry)
            view.changes(data, new)
    await _resolve(asked, "redriven", changes=changed)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{path} is no file of JSON", why=str(error)) from error


async def _resolve(
    asked: _Asked,
    kind: Literal["redriven", "discarded"],
    pace: Pace | None = None,
    changes: dict[str, Record] | None = None,
) -> None:
    from choreo.cli import dlq_view as view
    from choreo.dlq import Reason

    try:
        by = asked.by or getpass.getuser()
    except (KeyError, OSError) as error:  # in a container whose user has no name
        raise ConfigurationError("nobody knows later who", remedy="say it: --by NAME") from error
    if not asked.why and not asked.dry_run:
        raise ConfigurationError("nobody knows later why", remedy="say it: --why 'the gateway is back'")
    reason = Reason(kind=kind, by=by, why=asked.why, service=asked.chosen.service or "")
    async with _opened(asked, values=True) as (letters, _):
        if asked.dry_run:
            going = letters.select(replace(asked.chosen, state="open"))
            view.letters(letters.fold, going, as_json=asked.as_json)
            return
        *_, report = [report async for report in letters.resolve(asked.chosen, reason, pace, changes)]
    view.report(report, kind, as_json=asked.as_json)
    if report.stopped or report.refused:
        raise typer.Exit(common.FAILED)


@asynccontextmanager
async def _opened(asked: _Asked, *, values: bool = False) -> AsyncIterator[tuple[DeadLetters, Log]]:
    from choreo.dlq import Selection, dead_letters
    from choreo.log import open_log

    chosen = asked.chosen
    if values and chosen == Selection():
        raise ConfigurationError("no dead letter is selected", remedy="name ids, a fingerprint or another filter")
    async with (
        open_log(asked.settings.log, asked.settings.kafka, make=False) as log,
        dead_letters(log, topics=asked.topics, service=chosen.service, values_of=chosen if values else None) as letters,
    ):
        yield letters, log


def _registry(asked: _Asked) -> aclosing[Registry]:
    from choreo.wire import open_registry

    return aclosing(open_registry(asked.settings.registry))
