"""`choreo demo`: an example choreography at work in this process, audited and summed up."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from choreo.cli.common import FAILED, JsonOption, print_json, run_async, settings_with
from choreo.cli.load import load_services
from choreo.errors import ConfigurationError
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from services.shop.demo import Result

EXAMPLES = "Examples:\n\nchoreo demo\n\nchoreo demo --orders 1000 --log kafka://localhost:9092"


def demo(
    name: Annotated[str, typer.Argument(help="Which one: shop.")] = "shop",
    orders: Annotated[int, typer.Option(min=1, help="How many orders to place.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed places the same orders, with the same outcomes.")] = 7,
    log: Annotated[str | None, typer.Option(metavar="URL", help="Unless given, a new embedded log.")] = None,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="The share of orders to publish twice.")] = 0.05,
    as_json: JsonOption = False,
) -> None:
    """Run six independent services, place orders, and check every cent and parcel afterwards.

    The services' stores are new for each demo, in a temporary folder that is kept. A log that already holds
    events is fine; only one demo at a time can run on it.
    """
    if name != "shop":
        raise ConfigurationError(f"there is no demo {name!r}", remedy="choose one of: shop")
    try:
        load_services(["services.shop"])
    except ConfigurationError as error:
        remedy = "run `choreo demo` in a checkout of choreo's repository, where services/ is"
        raise ConfigurationError("the examples cannot be imported", why=error.what, remedy=remedy) from error
    from services.shop import demo as shop

    folder = Path(tempfile.mkdtemp(prefix="choreo-demo-"))
    registry = os.environ.get("CHOREO_REGISTRY") or str(Path(shop.__file__).parents[2] / "schemas")
    log, store = log or f"sqlite:///{folder / 'log.db'}", f"sqlite:///{folder}/{{service}}.db"
    settings = settings_with(log=log, store=store, registry=registry, create_topics=True)
    result = run_async(shop.run(settings, orders=orders, seed=seed, duplicates=duplicates))
    if as_json:
        print_json(asdict(result))
    else:
        _show(result, settings)
    if result.findings:
        raise typer.Exit(FAILED)


def _show(result: Result, settings: Settings) -> None:
    counts = {
        "orders started": result.started,
        "confirmed": result.confirmed,
        "cancelled, everything undone": result.cancelled_total,
        **{f"  {cause}": count for cause, count in result.cancelled.items()},
        "still open": result.open,
        f"events in {result.seconds:.2f} s": result.events,
        "events a second": result.events_per_second,
        f"duplicates dropped ({result.duplicates_published:,} orders came twice)": result.duplicates_dropped,
    }
    choreo = "choreo" if shutil.which("choreo") else sys.argv[0]
    elsewhere = "" if Path(settings.registry) == Path("schemas").absolute() else f" --registry {settings.registry}"
    commands = {
        "the events as they lie in the log": f"{choreo} topics tail orders --log {settings.log}{elsewhere}",
        "who reacts to what, read from the services' own code": f"{choreo} graph services.shop",
        "a service's own books": f"sqlite3 {settings.store_of('orders', None)[10:]} 'SELECT * FROM orders LIMIT 5'",
    }
    typer.secho("\nThe shop: six independent services, and nobody in charge\n", bold=True)
    for label, count in counts.items():
        print(f"  {label:<52}{count:>10,}")
    if result.findings:
        typer.secho("\nThe books are wrong:", fg="red")
    else:
        typer.secho("\n✓ Every cent, piece, parcel, message and point is where it must be.", fg="green")
    for finding in result.findings:
        print(f"  {finding}")
    print("\nWhere to look next", *(f"  # {meaning}\n  {command}" for meaning, command in commands.items()), sep="\n")
