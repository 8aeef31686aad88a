"""What the commands about sagas do: ask, and print the answer. Imported when one of them runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import typer

from choreo.cli import common, saga_print
from choreo.cli.saga_open import Asked, is_there, opened
from choreo.errors import ConfigurationError
from choreo.printable import printable
from choreo.saga.export import Format
from choreo.saga.export import export as exported
from choreo.saga.export.plain import as_dict, plain
from choreo.saga.filter_text import moment_of
from choreo.saga.model import Saga, SagaEvent
from choreo.saga.questions import Questions, Shown, Told, Verified
from choreo.saga.verify import LAWS
from choreo.saga.views import diff as differences
from choreo.saga.views import grid, ledger, sequence, summary, table, timeline, tree
from choreo.saga.views.lines import Line, Span, counted, line, moment


async def shown(questions: Questions, name: str, as_of: str | None) -> Shown:
    """The saga of this name, at a moment if one is given."""
    return await questions.show(name, as_of=None if as_of is None else moment_of(as_of, questions.now()))


async def show(asked: Asked, name: str, view: str, as_of: str | None, *, every: bool) -> None:
    """`choreo saga show`, `ledger`."""
    async with opened(asked) as questions:
        found = await shown(questions, name, as_of)
        if asked.as_json:
            common.print_json(as_dict(found.saga) | {"others": found.others, "notes": found.notes})
            return
        saga_print.show(page(found, questions, view, every=every))
        _say_others(found)


def page(found: Shown, questions: Questions, view: str = "tree", *, every: bool = False) -> list[Line]:
    """A saga as `show` prints it: how it is, a free line, and one view of it."""
    saga = found.saga
    lines = [
        *summary.lines(saga, now_ms=found.now_ms, as_of=found.as_of),
        *(line((note, "warn")) for note in found.notes),
    ]
    return [*lines, line(), *_viewed(saga, questions, view, every=every)]


def _viewed(saga: Saga, questions: Questions, view: str, *, every: bool) -> list[Line]:
    match view:
        case "sequence":
            return sequence.lines(saga, width=saga_print.width())
        case "timeline":
            return timeline.lines(saga, width=saga_print.width())
        case "ledger":
            return ledger.lines(saga)
    fold = len(saga.events) if every else tree.FOLD
    return tree.lines(tree.rows(saga, questions.graph, fold=fold))


def _say_others(found: Shown) -> None:
    if found.others:
        typer.echo(f"this is the newest of several: also {', '.join(map(printable, found.others))}", err=True)


async def watch(asked: Asked, fits: str, count: int) -> None:
    """`choreo saga watch`."""
    if asked.from_log or not is_there(asked.settings.tracker_store):
        what = f"there is nothing to watch in {asked.settings.tracker_store}"
        raise ConfigurationError(what, remedy="run a tracker: choreo tracker run")
    seen = 0
    async with opened(asked, fits) as questions, aclosing(questions.watch(fits)) as changes:
        async for change in changes:
            row = change.summary
            if asked.as_json:
                common.print_json(table.fields(row) | {"change": change.id})
            else:
                saga_print.show([table.change_line(row, now_ms=questions.now())])
            seen += 1
            if seen == count:
                return


async def events(asked: Asked, name: str, event: str | None) -> None:
    """`choreo saga events`."""
    async with opened(asked) as questions:
        if event is None:
            found = await questions.show(name)
            if asked.as_json:
                common.print_json([plain(one) for one in found.saga.events])
            else:
                saga_print.show(_event_lines(found.saga.events))
            return
        chosen, records = await questions.record(name, event)
    if asked.as_json:
        common.print_json(plain(chosen) | {"records": [plain(told) for told in records]})
    else:
        saga_print.show([each for told in records for each in _record_lines(chosen, told)])


def _event_lines(found: Sequence[SagaEvent]) -> list[Line]:
    rows: list[list[Span]] = [
        [(event.type, "bad" if event.failure else "strong"), (event.id, ""), (moment(event.produced_ms), "dim"),
         (event.handler or event.source, ""), (", ".join(map(str, event.places)), "")]
        for event in found
    ]  # fmt: skip
    return grid.lines(("event", "id", "produced", "from", "places"), rows)


def _record_lines(event: SagaEvent, told: Told) -> list[Line]:
    head = line((event.type, "strong"), f"  {event.id}  {told.place}")
    if told.gone:
        return [head, line(("the log has this record no more", "warn"))]
    schema = (
        f"{told.schema} version {told.version or 'unknown'} (schema {told.schema_id})" if told.schema else "none named"
    )
    facts = {"written": moment(told.written_ms), "key": told.key or "no key", "schema": schema}
    lines = [head, *(line((f"{name:<9}", "dim"), value, hang=" " * 9) for name, value in facts.items())]
    if told.undecodable:
        lines += [line(("cannot be decoded: ", "bad"), told.undecodable), line(told.hex, lead="  ", hang="  ")]
    else:
        shown_data = json.dumps(told.data, indent=2, ensure_ascii=False).splitlines()
        lines += [line(("data", "dim")), *(line(each, lead="  ", hang="    ") for each in shown_data)]
    headers = grid.lines(("header", "value"), [[(name, ""), (value, "")] for name, value in told.headers])
    return [*lines, *headers]


async def stats(asked: Asked, type_name: str | None) -> None:
    """`choreo saga stats`."""
    async with opened(asked) as questions:
        if type_name is not None:
            funnel = await questions.funnel(type_name)
            if asked.as_json:
                common.print_json(plain(funnel))
            else:
                saga_print.show(table.funnel_lines(funnel))
            return
        found = await questions.stats()
        if asked.as_json:
            common.print_json(plain(found))
        else:
            saga_print.show(table.stats_lines(found))


async def diff(asked: Asked, left: str, right: str) -> None:
    """`choreo saga diff`."""
    async with opened(asked) as questions:
        one, two = await asyncio.gather(questions.show(left), questions.show(right))
    if asked.as_json:
        pairs = differences.diff(one.saga, two.saga, questions.graph)
        common.print_json({"left": one.saga.id, "right": two.saga.id, "pairs": [plain(pair) for pair in pairs]})
    else:
        saga_print.show(differences.lines(one.saga, two.saga, questions.graph))


async def export(
    asked: Asked, names: Sequence[str], where: str | None, to: Format, output: Path | None, limit: int
) -> None:
    """`choreo saga export`."""
    async with opened(asked, where or "") as questions:
        if where is None:
            sagas: Sequence[Saga] = [(await questions.show(name)).saga for name in names]
        else:
            sagas = await questions.sagas(where, limit=limit)
        written = exported(sagas, questions.graph, to)
    if output is None:
        typer.echo(written, nl=False)
    else:
        _write(output, written)


def _write(output: Path, written: str) -> None:
    try:
        output.write_text(written, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written", why=str(error)) from error


async def why(asked: Asked, name: str, as_of: str | None) -> None:
    """`choreo saga why`."""
    async with opened(asked) as questions:
        moment_ms = None if as_of is None else moment_of(as_of, questions.now())
        found, sentences = await questions.why(name, as_of=moment_ms)
    if asked.as_json:
        saga = found.saga
        told = {"saga": saga.id, "type": saga.type, "key": saga.key, "state": saga.state, "reason": saga.reason}
        common.print_json(told | {"sentences": sentences, "others": found.others, "notes": found.notes})
        return
    saga_print.show([*map(_sentence, sentences), *(line((note, "warn")) for note in found.notes)])
    _say_others(found)


def _sentence(text: str) -> Line:
    """What to do stands out."""
    begin, colon, what = text.partition(": ")
    is_step = begin == "Next" or begin.endswith(("mended", "handled"))
    return line((begin + colon, "strong"), what, hang="  ") if is_step and colon else line(text, hang="  ")


async def verify(asked: Asked, name: str | None, where: str, limit: int) -> None:
    """`choreo saga verify`."""
    async with opened(asked, where) as questions:
        if name is None:
            verified = await questions.verify_all(where, limit=limit)
        else:
            saga, found = await questions.verify(name)
            verified = Verified(1, ((saga, tuple(found)),) if found else ())
    if asked.as_json:
        broken = [
            {"saga": saga.id, "type": saga.type, "key": saga.key, "found": plain(found)}
            for saga, found in verified.broken
        ]
        common.print_json({"checked": verified.checked, "broken": broken})
    else:
        saga_print.show(_verified_lines(verified))
    if verified.broken:
        raise typer.Exit(common.FAILED)


def _verified_lines(verified: Verified) -> list[Line]:
    lines: list[Line] = []
    for saga, found in verified.broken:
        lines.append(line((f"{saga.type} {saga.key}", "strong"), f"  {saga.id}  {saga.state}"))
        for one in found:
            about = " ".join(filter(None, [one.event, one.handler]))
            lines.append(
                line(
                    (one.code, "bad"),
                    f"  {one.words}",
                    (f"  ({about})" if about else "", "dim"),
                    lead="  ",
                    hang="       ",
                )
            )
            lines.append(line((f"law: {LAWS[one.code]}", "dim"), lead="       ", hang="       "))
    count = len(verified.broken)
    end = (
        (f"{count:,} of {counted(verified.checked, 'saga')} break{'s' * (count == 1)} a law", "bad")
        if count
        else (f"✓ {counted(verified.checked, 'saga')} keep{'s' * (verified.checked == 1)} all laws", "good")
    )
    return [*lines, line(end)]  # type: ignore[arg-type] # spans
