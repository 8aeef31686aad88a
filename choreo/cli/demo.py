"""`choreo demo`: an example choreography at work in this process, audited and summed up."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from choreo.cli.common import JsonOption, print_json, run_async, settings_with
from choreo.cli.load import load_services
from choreo.errors import ConfigurationError
from choreo.observe.logs import configure_logging
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from services.shop.demo import Result

_NAMES = ("shop",)


def demo(
    name: Annotated[str, typer.Argument(help=f"Which one: {', '.join(_NAMES)}.")] = "shop",
    orders: Annotated[int, typer.Option(min=1, help="How many orders to place.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed places the same orders, with the same outcomes.")] = 7,
    log: Annotated[
        str, typer.Option(metavar="URL", help="Such as kafka://localhost:9092; a new embedded log if left out.")
    ] = "",
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="The share of orders to publish twice.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Run six independent services, place orders, and check every cent and parcel afterwards.

    The services' stores are new for each demo, in a temporary folder that is kept. A log that already holds
    events is fine; only one demo at a time can run on it.
    """
    if name not in _NAMES:
        raise ConfigurationError(f"there is no demo {name!r}", remedy=f"choose one of: {', '.join(_NAMES)}")
    schemas = _schemas()
    from services.shop.demo import run

    configure_logging(level="warning")
    folder = Path(tempfile.mkdtemp(prefix="choreo-demo-"))
    settings = settings_with(
        log=log or f"sqlite:///{folder / 'log.db'}", store=f"sqlite:///{folder}/{{service}}.db", create_topics=True
    )
    if "registry" not in settings.model_fields_set:
        settings = settings.model_copy(update={"registry": str(schemas)})
    result = run_async(run(settings, orders=orders, seed=seed, duplicates=duplicates))
    if as_json:
        print_json(asdict(result))
    else:
        _show(result, settings, Console(highlight=False, soft_wrap=True))
    if result.findings:
        raise typer.Exit(1)


def _schemas() -> Path:
    """The folder of the examples' contracts, which lies beside the examples.

    Raises:
        ConfigurationError: the examples are not there; they are no part of the installed package.
    """
    try:
        load_services(["services.shop"])
    except ConfigurationError as error:
        raise ConfigurationError(
            "the example services cannot be imported",
            why=error.what,
            remedy="run `choreo demo` in a checkout of choreo's repository, where services/ is",
        ) from error
    import services

    return Path(str(services.__file__)).parents[1] / "schemas"


def _show(result: Result, settings: Settings, console: Console) -> None:
    console.print("\n[bold]The shop[/]: six independent services, and nobody in charge\n")
    console.print(_table(result))
    if result.findings:
        console.print("\n[bold red]The books are wrong:[/]")
    else:
        console.print("\n[green]✓[/] Every cent, piece, parcel, message and point is where it must be.")
    for finding in result.findings:
        console.print(f"  {finding}", markup=False)
    console.print("\n[bold]Where to look next[/]")
    choreo = "choreo" if shutil.which("choreo") else sys.argv[0]
    elsewhere = "" if Path(settings.registry) == Path("schemas").absolute() else f" --registry {settings.registry}"
    commands = {
        f"{choreo} topics tail orders --log {settings.log}{elsewhere}": "the events as they lie in the log",
        f"{choreo} graph services.shop": "who reacts to what, read from the services' own code",
        f"sqlite3 {settings.store_of('orders', None)[10:]} 'SELECT * FROM orders LIMIT 5'": "a service's own books",
    }
    for command, meaning in commands.items():
        console.print(f"  [dim]# {meaning}[/]")
        console.print(f"  {command}", markup=False)


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
    table.add_row(f"events in {result.seconds:.2f} s", f"{result.events:,}")
    table.add_row("events a second", f"{result.events_per_second:,}")
    table.add_row(
        f"duplicates dropped ({result.duplicates_published:,} orders came twice)", f"{result.duplicates_dropped:,}"
    )
    return table
