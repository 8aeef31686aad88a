"""How dead letters look, to people and to programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from choreo.cli.common import print_json, print_rows, printable
from choreo.dlq import DeadLetter, Fold, Group, Report, Resolution, original
from choreo.dlq.edit import data_of
from choreo.errors import ChoreoError
from choreo.log import Log
from choreo.wire import Codec

Row = dict[str, Any]
_TOLD = (
    "id", "family", "handler", "kind", "exception", "message", "fingerprint", "correlation_id", "attempts", "redrives",
    "parked",
)  # fmt: skip
_COUNTED = ("service", "fingerprint", "open", "redriven", "failed_again", "discarded", "parked")
_SHOWN = (
    "count", "service", "handler", "exception", "message", "first", "last", "parked", "fingerprint", "example",
)  # fmt: skip
"""What rows have of a dead letter, of a group, and of a group where a program reads it."""
_HEX = 128
"""How much of a value that cannot be decoded is shown."""
_YEAR_9999 = 253_402_000_000_000
_NUMBERS = {"parked", "redrives", "open", "redriven", "failed again", "discarded"}
_WIDEST = 28
"""Characters of a column, but for the last one."""
_COLOURS = {"open": "red", "redriven": "cyan", "discarded": "bright_black"}


def groups(fold: Fold, found: Iterable[DeadLetter], *, as_json: bool) -> None:
    """What went wrong, one after the other, the newest first."""
    rows = fold.groups(found)
    if as_json:
        print_json([_group(group) for group in rows])
    elif not sys.stdout.isatty():
        _table([{name: row[name] for name in _SHOWN} for row in map(_group, rows)])
    else:
        for group in rows:
            one, waiting = group.example, f", keys that wait: {group.parked}" if group.parked else ""
            count = typer.style(f"{group.open + group.redriven + group.discarded:>7,}", bold=True)
            error = typer.style(printable(_class(one)), fg="red")
            typer.echo(f"{count}  {typer.style(printable(_who(one)), fg='cyan')}  {error}: {printable(one.message)}")
            typer.echo(f"{'':9}first {_age(group.first_ms)}, last {_age(group.last_ms)}{waiting}")
            typer.secho(f"{'':9}group {group.fingerprint[:8]}, for example {one.id[:8]}\n", dim=True)
        look, again = "choreo dlq show ID", "choreo dlq redrive --fingerprint GROUP --dry-run"
        hints = f"{'':9}{look:<53}one of them\n{'':9}{again:<53}handle them again"
        typer.secho(hints if rows else "no dead letters", dim=True)


def letters(fold: Fold, found: Iterable[DeadLetter], *, as_json: bool) -> None:
    """One row for each."""
    if as_json:
        print_json([_letter(letter, fold) for letter in found])
        return
    _table([
        {
            "id": _short(letter.id), "state": fold.state(letter), "failed": _age(letter.failed_ms),
            "redrives": letter.redrives, "key": _text(letter.record.key), "handler": _who(letter), "error": f"{_class(letter)}: {letter.message}",
        }
        for letter in found
    ])  # fmt: skip


def counts(fold: Fold, found: Iterable[DeadLetter], *, as_json: bool) -> None:
    """What became of each group."""
    rows = fold.groups(found)
    if as_json:
        print_json([_group(group) for group in rows])
        return
    _table([
        {
            "group": _short(group.fingerprint), "open": group.open, "redriven": group.redriven,
            "failed again": group.failed_again, "discarded": group.discarded, "parked": group.parked,
            "oldest open": "" if group.oldest_open_ms is None else _age(group.oldest_open_ms),
            "handler": _who(group.example),
        }
        for group in rows
    ])  # fmt: skip


async def page(letter: DeadLetter, fold: Fold, log: Log, codec: Codec, *, as_json: bool) -> None:
    """Everything about one: event, error, history."""
    told = _letter(letter, fold)
    try:
        record = await original(log, letter)
        _, told["data"], why = await data_of(codec, record)
        if why:
            told |= {"undecodable": why, "value": (record.value or b"")[:_HEX].hex()}
    except ChoreoError as error:
        told |= {"undecodable": str(error), "value": ""}
    told |= {"trace": letter.trace, "history": [_event(one) for one in fold.history(letter)]}
    if as_json:
        print_json(told)
    else:
        _print_page(told)


def _print_page(told: Row) -> None:
    title = typer.style(told["id"], bold=True)
    typer.echo(f"{title}  {typer.style(told['state'], fg=_COLOURS[told['state']], bold=True)}\n")
    typer.secho(f"{printable(told['exception'] or 'error')}: {printable(told['message'])}", fg="red")
    for line in told["trace"].splitlines()[:12]:
        typer.secho(f"  {printable(line.strip())}", dim=True)
    lines = {
        "failed": f"{told['failed_at']}, {told['attempts']} attempts{', ' * bool(told['kind'])}{told['kind']}",
        "in": ".".join(filter(None, (told["service"], told["handler"]))),
        "event": f"{told['type'] or 'unknown type'}, key {told['key']}",
        "saga": told["correlation_id"],
        "original": told["original"],
        "dead letter": f"{told['dead_letter']} ({told['family']})",
        "group": told["fingerprint"],
        "key": "later records of it wait" if told["parked"] and told["state"] == "open" else "",
    }
    for name, text in lines.items():
        if text:
            typer.echo(f"  {typer.style(f'{name:<12}', dim=True)}{printable(str(text))}")
    _print_data(told)
    typer.secho("\nhistory", bold=True)
    for event in told["history"]:
        said = f" by {event['by']}: {event['why']}" if event.get("by") else f": {event['why']}"
        edited = " with other data" if event.get("edited") else ""
        typer.echo(f"  {event['at']}  {event['what']}{edited}{printable(said)}")


def _print_data(told: Row) -> None:
    typer.secho("\ndata", bold=True)
    if "undecodable" not in told:
        for line in json.dumps(told["data"], indent=2, ensure_ascii=False).splitlines():
            typer.echo(f"  {printable(line)}")
        return
    typer.secho(f"  cannot be decoded: {printable(told['undecodable'])}", fg="red")
    raw = bytes.fromhex(told["value"])
    for at in range(0, len(raw), 16):
        part = raw[at : at + 16]
        text = "".join(char if char.isprintable() and char.isascii() else "." for char in part.decode("latin-1"))
        typer.echo(f"  {at:04x}  {part.hex(' '):<47}  {text}")


def print_differences(changes: Iterable[tuple[str, str, str]]) -> None:
    """The fields that change, as they were and as they will be."""
    for path, old, new in changes:
        for sign, text, colour in (("-", old, "red"), ("+", new, "green")):
            if text:
                typer.secho(f"{sign} {printable(path)}: {printable(text)}", fg=colour, err=True)


async def followed(reports: AsyncGenerator[Report, None]) -> Report:
    """The last of the reports; on a terminal the way there is shown."""
    from rich.progress import Progress

    last = Report()
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("dead letters", total=None)
        async with aclosing(reports):
            async for last in reports:
                bar.update(task, completed=last.resolved, total=last.resolved + last.left)
    return last


def report(done: Report, kind: str, *, as_json: bool) -> None:
    """What was done, and what was not."""
    if as_json:
        print_json(asdict(done))
        return
    numbers = {kind: done.resolved, "resolved before": done.passed_over}
    numbers |= {"failed again": done.failed_again, "left": done.left}
    print(", ".join(f"{number:,} {name}" for name, number in numbers.items() if number or name == kind))
    for id_, why in done.refused.items():
        typer.secho(f"not {id_}: {printable(why)}", fg="red", err=True)
    if done.stopped:
        typer.secho(f"stopped: {done.stopped}", fg="red", err=True)


def _letter(letter: DeadLetter, fold: Fold) -> Row:
    row = {name: getattr(letter, name) for name in _TOLD} | {"service": letter.group, "type": letter.type_name}
    row |= {"state": fold.state(letter), "failed_again": fold.failed_again(letter), "key": _text(letter.record.key)}
    row |= {"original": str(letter.place), "dead_letter": str(letter.at)}
    return row | {"first_failed_at": _iso(letter.first_failed_ms), "failed_at": _iso(letter.failed_ms)}


def _group(group: Group) -> Row:
    row = {name: getattr(group, name) for name in _COUNTED} | {"count": group.open + group.redriven + group.discarded}
    row |= {name: getattr(group.example, name) for name in ("handler", "exception", "message")}
    row |= {"example": group.example.id, "first": _iso(group.first_ms), "last": _iso(group.last_ms)}
    return row | {"oldest_open": None if group.oldest_open_ms is None else _iso(group.oldest_open_ms)}


def _event(one: DeadLetter | Resolution) -> Row:
    if isinstance(one, DeadLetter):
        what = "failed again" if one.redrives else "failed"
        return {"at": _iso(one.failed_ms), "what": what, "id": one.id, "why": one.message}
    at = _iso(one.at_ms)
    return {"at": at, "what": one.kind, "id": one.of, "by": one.by, "why": one.why, "edited": one.edited}


def _table(rows: Sequence[Mapping[str, object]]) -> None:
    """A table on a terminal, cut to its width; elsewhere tab-separated lines."""
    shown = [{name: printable(str(value)) for name, value in row.items()} for row in rows]
    if not sys.stdout.isatty() or not shown:
        print_rows(shown, as_json=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    *names, last = shown[0]
    for name in names:
        width = min(_WIDEST, max(len(text) for text in (name, *(row[name] for row in shown))))
        justify: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
        table.add_column(name, no_wrap=True, justify=justify, min_width=width, max_width=width)
    table.add_column(last, no_wrap=True)
    for row in shown:
        table.add_row(*(Text(text, _COLOURS.get(text, "")) for text in row.values()))
    Console().print(table)


def _short(id_: str) -> str:
    """What people type; a program gets all of it."""
    return id_[:8] if sys.stdout.isatty() else id_


def _class(letter: DeadLetter) -> str:
    return letter.exception.rpartition(".")[2] or letter.kind or "error"


def _who(letter: DeadLetter) -> str:
    return f"{letter.group}.{letter.handler}" if letter.handler else letter.group


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="backslashreplace")


def _iso(ms: int) -> str:
    ms = min(max(ms, 0), _YEAR_9999)  # a header may say anything
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _age(ms: int) -> str:
    """How long ago; a program gets the time itself."""
    if not sys.stdout.isatty():
        return _iso(ms)
    age = max(0, int(time.time() - ms / 1000))
    size, unit = next(((size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "m")) if age >= size), (1, "s"))
    return f"{age // size}{unit} ago"
