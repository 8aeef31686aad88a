"""`choreo saga`: what is happening to this one now, what happened last Tuesday, and how they all are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from choreo.cli import common
from choreo.cli.saga_open import Asked, Texts, command, opened
from choreo.errors import ConfigurationError

app = typer.Typer(
    help="Sagas: list, show, why, watch, events, stats, diff, ledger, verify, export.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Text = str | None
View = Literal["tree", "sequence", "timeline", "ledger"]
_NAME_HELP = "Its id or the beginning of it, its business key, or the id of an event or dead letter of it."
Name = Annotated[str, typer.Argument(metavar="SAGA", help=_NAME_HELP)]
AsOf = Annotated[Text, typer.Option(metavar="TIME", help="As it was then: -2h, 2026-10-18T14:30:00Z.")]
_FILTER_HELP = "Which ones, such as: state = stuck and started > -2h (docs/inspecting.md)."
Filter = Annotated[Texts, typer.Argument(metavar="FILTER", help=_FILTER_HELP)]
Most = Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many, the newest.")]


@command(
    app, "list", examples="choreo saga list\n\nchoreo saga list 'state = stuck and type = OrderPlaced' --limit 100"
)
def list_(
    asked: Asked,
    fits: Filter = None,
    limit: Most = 20,
    after: Annotated[Text, typer.Option(metavar="CURSOR", help="Go on behind the page before.")] = None,
) -> None:
    """Sagas that fit a filter, the newest first."""
    from choreo.cli import saga_print
    from choreo.saga.views import table

    wanted = " ".join(fits or [])

    async def run() -> None:
        async with opened(asked, wanted) as questions:
            page = await questions.list(wanted, limit=limit, after=after)
            if asked.as_json:
                common.print_json({"sagas": [table.fields(row) for row in page.rows], "after": page.after})
                return
            saga_print.table(page.rows, now_ms=questions.now())
            if not page.rows and not page.after:
                print("no saga fits" if fits else "there are no sagas", file=sys.stderr)
            if page.after:
                print(f"there are more: --after {page.after}", file=sys.stderr)

    common.run_async(run())


@command(app, "show", examples="choreo saga show o-17\n\nchoreo saga show 01a2 --view timeline --as-of -1h")
def show(
    asked: Asked,
    name: Name,
    view: Annotated[View, typer.Option(help="How.")] = "tree",
    as_of: AsOf = None,
    every: Annotated[bool, typer.Option("--all", help="Fold nothing, however many are alike.")] = False,
) -> None:
    """One saga: how it is and why, what came of what, who handled it, and what is still to come."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.show(asked, name, view, as_of, every=every))


@command(app, "why", examples="choreo saga why o-17\n\nchoreo saga why o-17 --as-of 2026-10-18T14:30:00Z")
def why(asked: Asked, name: Name, as_of: AsOf = None) -> None:
    """Why it is as it is, in plain sentences: what it waits for, who owes it, and what to do."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.why(asked, name, as_of))


@command(app, "watch", examples="choreo saga watch 'type = OrderPlaced'\n\nchoreo saga watch key = o-17 --json")
def watch(
    asked: Asked,
    fits: Filter = None,
    count: Annotated[int, typer.Option(min=0, help="End after so many changes; 0: never.")] = 0,
) -> None:
    """Every change of sagas that fit a filter, as it comes; needs a tracker that runs."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.watch(asked, " ".join(fits or []), count))


@command(app, "events", examples="choreo saga events o-17\n\nchoreo saga events o-17 PaymentCharged --json")
def events(
    asked: Asked,
    name: Name,
    event: Annotated[Text, typer.Argument(help="Its id, the beginning or end of it, or its type.")] = None,
) -> None:
    """The events of a saga; of one of them what its record says: data, schema, headers."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.events(asked, name, event))


@command(app, "stats", examples="choreo saga stats\n\nchoreo saga stats OrderPlaced")
def stats(
    asked: Asked,
    type_name: Annotated[Text, typer.Argument(metavar="TYPE", help="How far these come, by their first event.")] = None,
) -> None:
    """How many sagas are how, and how long they take; of one type, how far they come."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.stats(asked, type_name))


@command(app, "diff", examples="choreo saga diff o-17 o-18")
def diff(
    asked: Asked, left: Name, right: Annotated[str, typer.Argument(metavar="SAGA", help="The other one.")]
) -> None:
    """Two sagas beside each other, and where they part."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.diff(asked, left, right))


@command(app, "ledger", examples="choreo saga ledger o-17")
def ledger(asked: Asked, name: Name, as_of: AsOf = None) -> None:
    """What its steps have done, and what has undone it, or still has to."""
    from choreo.cli import saga_answers

    common.run_async(saga_answers.show(asked, name, "ledger", as_of, every=False))


@command(app, "verify", examples="choreo saga verify o-17\n\nchoreo saga verify --where 'started > -1d'")
def verify(
    asked: Asked,
    name: Annotated[Text, typer.Argument(metavar="SAGA", help=_NAME_HELP)] = None,
    where: Annotated[Text, typer.Option(metavar="FILTER", help="Those that fit; all unless a saga is named.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest.")] = 1000,
) -> None:
    """The laws of choreography checked over what the log has recorded; exit code 1 if one was broken."""
    from choreo.cli import saga_answers

    if name is not None and where is not None:
        raise ConfigurationError("a saga is named and --where is given", remedy="give one of them")
    common.run_async(saga_answers.verify(asked, name, where or "", limit))


@command(
    app,
    "export",
    examples="choreo saga export o-17 --format html -o saga.html\n\nchoreo saga export --where 'state = failed' --format ocel",
)
def export(
    asked: Asked,
    names: Annotated[Texts, typer.Argument(metavar="SAGA", help=_NAME_HELP)] = None,
    where: Annotated[Text, typer.Option(metavar="FILTER", help="Those that fit, instead of names.")] = None,
    to: Annotated[
        Literal["json", "ndjson", "mermaid", "mermaid-flow", "ocel", "html"], typer.Option("--format", help="As what.")
    ] = "json",
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Else standard output.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest.")] = 1000,
) -> None:
    """Sagas for other programs: JSON, NDJSON, Mermaid, OCEL 2.0, or a page of HTML that needs nothing else."""
    from choreo.cli import saga_answers

    if bool(names) == (where is not None):
        what = "sagas are named and --where is given" if names else "no saga is named"
        raise ConfigurationError(what, remedy="name some, or give --where FILTER; not both")
    common.run_async(saga_answers.export(asked, names or [], where, to, output, limit))
