"""`choreo demo`: an example choreography at work in this process, waited for, audited and summed up."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from choreo.cli.common import print_json, run_async, settings_with
from choreo.cli.load import load_services
from choreo.errors import ConfigurationError
from choreo.log import open_log
from choreo.observe.logs import configure_logging
from choreo.runtime.bus import connect
from choreo.runtime.run import running
from choreo.runtime.settings import Settings
from choreo.service import Service

_NAMES = ("shop",)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a demo.

    Attributes:
        cancelled: how many orders were cancelled, by cause; in all `cancelled_total`.
        events: how many records the demo added to the log, dead letters and duplicates included.
        seconds: from the first order published until the last book was right.
        duplicates_published: how many orders came twice under one event id.
        duplicates_dropped: how often a service knew an event already.
        findings: what the audit found wrong, in words.
    """

    log: str
    stores: str
    started: int
    confirmed: int
    cancelled: dict[str, int]
    cancelled_total: int
    open: int
    events: int
    seconds: float
    events_per_second: int
    duplicates_published: int
    duplicates_dropped: int
    findings: list[str]


def demo(
    name: Annotated[str, typer.Argument(help=f"Which one: {', '.join(_NAMES)}.")] = "shop",
    orders: Annotated[int, typer.Option(min=1, help="How many orders to place.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed places the same orders, with the same outcomes.")] = 7,
    log: Annotated[
        str, typer.Option(help="An address such as kafka://localhost:9092; an embedded log if left out.")
    ] = "",
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="The share of orders to publish twice.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run six independent services, place orders, and check every cent and parcel afterwards.

    The services' stores are new for each demo, in a temporary folder that is kept. A log that already holds
    events is fine; only one demo at a time can run on it.
    """
    if name not in _NAMES:
        raise ConfigurationError(f"there is no demo {name!r}", remedy=f"choose one of: {', '.join(_NAMES)}")
    configure_logging(level="warning")
    shop = _services()
    folder = Path(tempfile.mkdtemp(prefix="choreo-demo-"))
    settings = _settings(log, folder)
    result = run_async(_run(shop, settings, orders=orders, seed=seed, duplicates=duplicates))
    if as_json:
        print_json(asdict(result))
    else:
        _show(result, Console(highlight=False), folder)
    if result.findings:
        raise typer.Exit(1)


def _services() -> list[Service]:
    """The shop's services.

    Raises:
        ConfigurationError: they are not there: the examples are no part of the installed package.
    """
    try:
        return load_services(["services.shop"])
    except ConfigurationError as error:
        raise ConfigurationError(
            "the example services cannot be imported",
            why=error.what,
            remedy="run `choreo demo` in a checkout of choreo's repository, where services/ is",
        ) from error


def _settings(log: str, folder: Path) -> Settings:
    """Fresh stores in this folder, and the contracts that lie beside the examples unless a registry is named."""
    import services

    settings = settings_with(
        log=log or f"sqlite:///{folder / 'log.db'}", store=f"sqlite:///{folder}/{{service}}.db", create_topics=True
    )
    if "registry" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"registry": str(Path(str(services.__file__)).parents[1] / "schemas")})


async def _run(services: list[Service], settings: Settings, *, orders: int, seed: int, duplicates: float) -> Result:
    from services.shop.audit import audit, ended, open_stores
    from services.shop.model import Outcome, books_of
    from services.shop.orders_generator import orders as sample
    from services.shop.trial import begin, ends_of, place, settle, unless_failed

    placed = sample(seed, orders)
    books = books_of(placed)
    async with open_log(settings.log, settings.kafka) as log:
        since = await begin(services, settings, log)
        async with running(services, settings, log=log) as instances, connect(settings, source="demo", log=log) as bus:
            start = monotonic()
            twice = await place(bus, placed, duplicates=duplicates, seed=seed)
            settling = settle(services, log, stores=settings.store, books=books, since=since)
            verdict = await unless_failed(settling, instances.values())
        events = sum((await ends_of(services, log)).values()) - sum(since.values())
    with open_stores(settings.store) as stores:
        outcomes = Counter(ended(stores).values())
        findings = verdict.findings or audit(stores, books)  # once more, now that everything has stopped
    seconds = verdict.at - start
    cancelled = {str(outcome): outcomes[outcome] for outcome in Outcome if outcome is not Outcome.CONFIRMED}
    return Result(
        log=settings.log,
        stores=settings.store,
        started=orders,
        confirmed=outcomes[Outcome.CONFIRMED],
        cancelled=cancelled,
        cancelled_total=sum(cancelled.values()),
        open=orders - outcomes[Outcome.CONFIRMED] - sum(cancelled.values()),
        events=events,
        seconds=round(seconds, 3),
        events_per_second=round(events / seconds),
        duplicates_published=twice,
        duplicates_dropped=sum(instance.stats.duplicates for instance in instances.values()),
        findings=findings,
    )


def _show(result: Result, console: Console, folder: Path) -> None:
    console.print("\n[bold]The shop[/]: six independent services, and nobody in charge\n")
    console.print(_table(result))
    if result.findings:
        console.print("\n[bold red]The books are wrong:[/]")
        for finding in result.findings:
            console.print(f"  {finding}", markup=False, soft_wrap=True)
    else:
        console.print("\n[green]✓[/] Every cent, piece, parcel, message and point is where it must be.")
    console.print("\n[bold]Where to look next[/]")
    for command, meaning in _next(result, folder):
        console.print(f"  [dim]# {meaning}[/]", soft_wrap=True)
        console.print(f"  {command}", markup=False, soft_wrap=True)


def _table(result: Result) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(min_width=42)
    table.add_column(justify="right", style="bold", min_width=10)
    table.add_row("orders started", f"{result.started:,}")
    table.add_row("[green]confirmed[/]", f"{result.confirmed:,}")
    table.add_row("[yellow]cancelled[/], everything undone", f"{result.cancelled_total:,}")
    for cause, count in result.cancelled.items():
        table.add_row(f"  [dim]{cause}[/]", f"[dim]{count:,}[/]")
    table.add_row("[red]still open[/]" if result.open else "still open", f"{result.open:,}")
    table.add_section()
    table.add_row(f"events in {result.seconds:.2f} s", f"{result.events:,}")
    table.add_row("events a second", f"{result.events_per_second:,}")
    table.add_row(
        f"duplicates dropped ({result.duplicates_published:,} orders came twice)", f"{result.duplicates_dropped:,}"
    )
    return table


def _next(result: Result, folder: Path) -> list[tuple[str, str]]:
    """Commands that work as they stand, each with what it shows."""
    return [
        (f"choreo topics tail orders --log {result.log}", "the events as they lie in the log"),
        ("choreo graph services.shop", "who reacts to what, read from the services' own code"),
        (f"sqlite3 {folder}/orders.db 'SELECT * FROM orders LIMIT 5'", "a service's own store"),
    ]
