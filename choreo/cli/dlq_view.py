"""How dead letters look, to people and to programs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer

from choreo.cli.common import print_json, print_rows
from choreo.dlq import DeadLetter, Fold, Group, Report, Resolution, original
from choreo.dlq.edit import data_of
from choreo.errors import ChoreoError
from choreo.log import Log
from choreo.printable import printable
from choreo.wire import Codec

Row = dict[str, Any]
_TOLD = (
    "id", "family", "handler", "kind", "exception", "message", "fingerprint", "key", "correlation_id", "attempts",
    "redrives", "parked",
)  # fmt: skip
_LISTED = ("count", "parked", "service", "handler", "kind", "exception", "message", "last", "fingerprint", "example")
_COUNTED = ("fingerprint", "open", "redriven", "failed_again", "discarded", "parked", "first", "service", "handler")
_SINGLE = ("id", "state", "failed_at", "redrives", "key", "service", "handler", "message")
"""What tables have of groups, of what became of them, and of single ones; JSON has all."""
_WIDTHS = {"id": 8, "fingerprint": 8, "example": 8, "message": 80, "first": 19, "last": 19, "failed_at": 19}
_BYTES, _TRACE = 128, 12
"""How much is shown of a value that cannot be decoded, and lines of a trace."""
_YEAR_9999 = 253_402_000_000_000


def groups(fold: Fold, found: Iterable[DeadLetter], *, counts: bool, as_json: bool) -> None:
    """One row for each group, the newest first, but compensations before all: what went wrong, or what became of it."""
    rows = sorted(map(_group, fold.groups(found)), key=lambda row: row["kind"] != "compensation")
    if as_json:
        print_json(rows)
    else:
        _table(rows, _COUNTED if counts else _LISTED)


def letters(fold: Fold, found: Iterable[DeadLetter], *, as_json: bool) -> None:
    """One row for each."""
    rows = [_letter(one, fold) for one in found]
    if as_json:
        print_json(rows)
    else:
        _table(rows, _SINGLE)


def _table(rows: Iterable[Row], names: Sequence[str]) -> None:
    """These columns, short enough for a terminal."""
    print_rows([{name: str(row[name])[: _WIDTHS.get(name)] for name in names} for row in rows], as_json=False)


async def page(letter: DeadLetter, fold: Fold, log: Log, codec: Codec, *, as_json: bool) -> None:
    """Everything about one: error, event, history."""
    told = _letter(letter, fold)
    try:
        record = await original(log, letter)
        data, why = await data_of(codec, record)
        told["schema"] = dict(record.headers).get("ce_dataschema", b"").decode(errors="backslashreplace")
        told |= {"undecodable": why, "value": (record.value or b"")[:_BYTES].hex(" ")} if why else {"data": data}
    except ChoreoError as error:
        told["undecodable"] = str(error)
    history = [_event(one) for one in fold.history(letter)]
    if as_json:
        print_json(told | {"trace": letter.trace, "history": history})
        return
    if "data" in told:
        told["data"] = json.dumps(told["data"], indent=2, ensure_ascii=False)
    for name, value in (told | {"trace": "\n".join(letter.trace.splitlines()[:_TRACE])}).items():
        first, *more = str(value).splitlines() or [""]
        if value not in {"", None}:
            typer.echo("\n".join([f"{name:<16}{printable(first)}", *(f"  {printable(line)}" for line in more)]))
    typer.echo("history")
    print_rows(history, as_json=False)


def changes(old: Any, new: Any) -> None:
    """The lines of the data that change, as they were and as they will be."""
    before, after = (json.dumps(data, indent=2, ensure_ascii=False).splitlines() for data in (old, new))
    for line in difflib.ndiff(before, after):
        if line[0] in "+-":
            typer.echo(printable(line), err=True)


def report(done: Report, kind: str, *, as_json: bool) -> None:
    """What was done, and what was not."""
    if as_json:
        print_json(asdict(done))
        return
    numbers = {kind: done.resolved, "resolved before": done.passed_over}
    numbers |= {"failed again": done.failed_again, "left": done.left}
    print(", ".join(f"{number:,} {name}" for name, number in numbers.items() if number or name == kind))
    for line in [*(f"not {id_}: {why}" for id_, why in done.refused.items()), *filter(None, [done.stopped])]:
        typer.secho(printable(line), fg="red", err=True)


def _letter(letter: DeadLetter, fold: Fold) -> Row:
    row = {"state": fold.state(letter)} | {name: getattr(letter, name) for name in _TOLD}
    row |= {"service": letter.group, "type": letter.type_name, "failed_again": fold.failed_again(letter)}
    row |= {"original": str(letter.place), "dead_letter": str(letter.at)}
    return row | {"first_failed_at": _iso(letter.first_failed_ms), "failed_at": _iso(letter.failed_ms)}


def _group(group: Group) -> Row:
    one, count = group.example, group.open + group.redriven + group.discarded
    return {
        "count": count, "open": group.open, "redriven": group.redriven, "failed_again": group.failed_again,
        "discarded": group.discarded, "parked": group.parked, "service": one.group, "handler": one.handler, "kind": one.kind,
        "exception": one.exception, "message": one.message, "fingerprint": one.fingerprint, "example": one.id,
        "first": _iso(group.first_ms), "last": _iso(group.last_ms),
    }  # fmt: skip


def _event(one: DeadLetter | Resolution) -> Row:
    if isinstance(one, DeadLetter):
        what, at = "failed again" if one.redrives else "failed", _iso(one.failed_ms)
        return {"at": at, "what": what, "id": one.id, "by": "", "why": one.message, "edited": False}
    at = _iso(one.at_ms)
    return {"at": at, "what": one.kind, "id": one.of, "by": one.by, "why": one.why, "edited": one.edited}


def _iso(ms: int) -> str:
    ms = min(ms, _YEAR_9999)  # a header may say anything
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
