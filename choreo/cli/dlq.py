"""`choreo dlq`: what has failed for good, shown, and given back to the one service that failed."""

from __future__ import annotations

import getpass
import inspect
import json
import os
import shlex
import subprocess
import tempfile
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
    from choreo.dlq import DeadLetters, Pace, Reason, Selection
    from choreo.log import Log, Record
    from choreo.runtime.settings import Settings

app = typer.Typer(
    help="Dead letters: list, show, redrive, edit, discard.", no_args_is_help=True, rich_markup_mode="markdown"
)

Text = str | None
By = Annotated[Text, typer.Option("--by", help="Who does this; the user's name unless given.")]
Why = Annotated[Text, typer.Option("--why", help="The reason, kept with the records.")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
_FILTERS = ("fingerprint", "handler", "type_name", "key", "since", "state")


@dataclass(frozen=True)
class _Asked:
    """What all commands are told: where things are, which topics to read and which dead letters are meant."""

    settings: Settings
    topics: Sequence[str]
    chosen: Selection
    as_json: bool


def _asked(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Their first characters are enough.")] = None,
    service: Annotated[Text, typer.Option(help="Of this service; who shall handle other systems' ones.")] = None,
    fingerprint: Annotated[Text, typer.Option(help="Of this group.")] = None,
    handler: Annotated[Text, typer.Option(help="Of this handler.")] = None,
    type_name: Annotated[Text, typer.Option("--type", help="Of this event type.")] = None,
    key: Annotated[Text, typer.Option(help="Of this key.")] = None,
    since: Annotated[Text, typer.Option(metavar="10m", help="Failed since.")] = None,
    state: Annotated[
        Literal["open", "redriven", "discarded", "any"], typer.Option(help="What became of them.")
    ] = "open",
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Another system's topic; else dlq.*")] = None,
    log: common.LogOption = None,
    registry: common.RegistryOption = None,
    as_json: common.JsonOption = False,
) -> _Asked:
    from choreo.dlq import Selection

    since_ms = None if since is None else int((time.time() - seconds(since)) * 1000)
    chosen = Selection(
        ids=tuple(ids or ()), service=service, fingerprint=fingerprint, handler=handler, type_name=type_name, key=key,
        since_ms=since_ms, state=None if state == "any" else state,
    )  # fmt: skip
    return _Asked(common.settings_with(log=log, registry=registry), topics or [], chosen, as_json)


def _command(name: str, *without: str, example: str) -> Callable[[Callable[..., None]], None]:
    """Registers a command with the options of `_asked`, but for some; it gets what they say as its first argument."""

    def register(command: Callable[..., None]) -> None:
        shared = {n: p for n, p in inspect.signature(_asked, eval_str=True).parameters.items() if n not in without}
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
    asked: _Asked, every: Annotated[bool, typer.Option("--all", help="Single ones, not groups.")] = False
) -> None:
    """What has failed for good, by what went wrong; the newest first."""
    from choreo.cli import dlq_view as view

    async def run() -> None:
        async with _opened(asked) as (letters, _):
            found = letters.select(asked.chosen)[::-1]
            if every:
                view.letters(letters.fold, found, as_json=asked.as_json)
            else:
                view.groups(letters.fold, found, as_json=asked.as_json)
            if letters.fold.foreign:
                typer.echo(f"{letters.fold.foreign:,} records do not say why they are there", err=True)

    common.run_async(run())


@_command("stats", "ids", "state", example="choreo dlq stats --json")
def stats(asked: _Asked) -> None:
    """What became of the dead letters of each service and group, and how old the oldest open one is."""
    from choreo.cli import dlq_view as view

    async def run() -> None:
        async with _opened(asked) as (letters, _):
            everything = letters.select(replace(asked.chosen, state=None))
            view.counts(letters.fold, everything, as_json=asked.as_json)

    common.run_async(run())


@_command("show", "service", *_FILTERS, example="choreo dlq show 4f2a")
def show(asked: _Asked) -> None:
    """The event of a dead letter, the error, where the original lies, and what has been done about it."""
    from choreo.cli import dlq_view as view
    from choreo.wire import Codec

    if not asked.chosen.ids:
        raise ConfigurationError("no dead letter is named", remedy="choreo dlq list --all shows their ids")

    async def run() -> None:
        async with _opened(asked, values=True) as (letters, log), _registry(asked) as registry:
            for letter in letters.select(replace(asked.chosen, state=None)):
                await view.page(letter, letters.fold, log, Codec(registry), as_json=asked.as_json)

    common.run_async(run())


@_command("redrive", "state", example="choreo dlq redrive --fingerprint 9c1f --why 'gateway is back' --canary 1")
def redrive(
    asked: _Asked,
    why: Why = None,
    by: By = None,
    dry_run: Dry = False,
    canary: Annotated[int, typer.Option(min=0, help="So many first; the others if these went well.")] = 0,
    rate: Annotated[Text, typer.Option(metavar="N/s", help="At most so many a second.")] = None,
    max_failures: Annotated[float | None, typer.Option(min=0, max=1, help="Stop above this share.")] = None,
    wait: Annotated[str, typer.Option(help="How long to wait for an outcome.")] = "60s",
) -> None:
    """Let the service that failed handle them again: those named, of one group, or that fit all filters.

    Nobody else sees them; what waits behind a key follows. Interrupted, run it again: it goes on.
    """
    from choreo.dlq import Pace

    pace = Pace(canary=canary, rate=_per_second(rate), max_failures=max_failures, wait=seconds(wait))
    reason = _reason(asked, "redriven", why, by, dry_run=dry_run)
    common.run_async(_resolve(asked, reason, dry_run=dry_run, pace=pace))


@_command("discard", "state", example="choreo dlq discard 4f2a --why 'a test order'")
def discard(asked: _Asked, why: Why = None, by: By = None, dry_run: Dry = False) -> None:
    """Never handle them; what waits behind their keys goes on."""
    common.run_async(_resolve(asked, _reason(asked, "discarded", why, by, dry_run=dry_run), dry_run=dry_run))


@_command("edit", *_FILTERS, example="choreo dlq edit 4f2a --set total=12 --why 'a typing error'")
def edit(
    asked: _Asked,
    fields: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="VALUE is JSON.")] = None,
    value: Annotated[Text, typer.Option(metavar="FILE", help="All data, as JSON.")] = None,
    why: Why = None,
    by: By = None,
    dry_run: Dry = False,
) -> None:
    """Redrive one with other data; unless --set or --value says which, in $EDITOR."""
    from choreo.cli import dlq_view as view
    from choreo.dlq import original
    from choreo.dlq.edit import data_of, differences, edited, with_fields
    from choreo.wire import Codec

    if len(asked.chosen.ids) != 1:
        raise ConfigurationError("one dead letter is edited at a time", remedy="name its id")
    reason = _reason(asked, "redriven", why, by, dry_run=dry_run)

    async def run() -> None:
        async with _opened(asked, values=True) as (letters, log), _registry(asked) as registry:
            codec = Codec(registry)
            (letter,) = letters.select(replace(asked.chosen, state=None))
            record = await original(log, letter)
            _, data, why_not = await data_of(codec, record)
            if fields and data is None:
                raise ConfigurationError("no field can be set", why=why_not, remedy="give all data: --value FILE")
            new = with_fields(data, fields or []) if value is None else _parsed(value)
            new = new if fields or value else _in_editor(data)
            changed = await edited(record, new, letter.type_name, codec, registry)
            if new == data:
                raise ConfigurationError("nothing is changed", remedy="choreo dlq redrive gives it back as it is")
            view.print_differences(differences(data, new))
        await _resolve(asked, reason, dry_run=dry_run, changes={letter.id: changed})

    common.run_async(run())


def _reason(
    asked: _Asked, kind: Literal["redriven", "discarded"], why: str | None, by: str | None, *, dry_run: bool
) -> Reason:
    from choreo.dlq import Reason

    if not why and not dry_run:
        raise ConfigurationError("nobody knows later why", remedy="say it: --why 'the gateway is back'")
    try:
        by = by or getpass.getuser()
    except (KeyError, OSError) as error:  # in a container whose user has no name
        raise ConfigurationError("nobody knows later who", remedy="say it: --by NAME") from error
    return Reason(kind=kind, by=by, why=why or "", service=asked.chosen.service or "")


async def _resolve(
    asked: _Asked,
    reason: Reason,
    *,
    dry_run: bool,
    pace: Pace | None = None,
    changes: dict[str, Record] | None = None,
) -> None:
    from choreo.cli import dlq_view as view

    async with _opened(asked, values=True) as (letters, _):
        if dry_run:
            going = [letter for some in letters.by_service(asked.chosen, reason).values() for letter in some]
            view.letters(letters.fold, going, as_json=asked.as_json)
            return
        report = await view.followed(letters.resolve(asked.chosen, reason, pace, changes))
    view.report(report, reason.kind, as_json=asked.as_json)
    if report.stopped or report.refused:
        raise typer.Exit(common.FAILED)


@asynccontextmanager
async def _opened(asked: _Asked, *, values: bool = False) -> AsyncIterator[tuple[DeadLetters, Log]]:
    from choreo.dlq import dead_letters
    from choreo.log import open_log

    async with open_log(asked.settings.log, asked.settings.kafka) as log:
        kept = asked.chosen if values else None
        async with dead_letters(log, topics=asked.topics, service=asked.chosen.service, values_of=kept) as letters:
            yield letters, log


def _registry(asked: _Asked) -> Any:
    from choreo.wire import open_registry

    return aclosing(open_registry(asked.settings.registry))


def _per_second(rate: str | None) -> float | None:
    """Raises ConfigurationError if it is no rate."""
    if rate is None:
        return None
    try:
        number = float(rate.removesuffix("/s"))
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ConfigurationError(f"{rate!r} is no rate", remedy="write 10/s or 0.5/s")
    return number


def _in_editor(data: Any) -> Any:
    """What the user makes of the data."""
    with tempfile.NamedTemporaryFile("w+", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(data or {}, indent=2, ensure_ascii=False))
        file.flush()
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        subprocess.run([*shlex.split(editor), file.name], check=True)  # noqa: S603 - the user's own editor
        return _parsed(file.name)


def _parsed(path: str) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{path} is no file of JSON", why=str(error)) from error
