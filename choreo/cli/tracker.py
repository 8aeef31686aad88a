"""`choreo tracker`: the process that rebuilds every saga from the log, its rebuild, and how far it is."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from choreo.choreography import Choreography
from choreo.cli.common import (
    JsonOption,
    LogOption,
    Modules,
    RegistryOption,
    print_json,
    print_rows,
    run_async,
    settings_with,
)
from choreo.cli.load import load_services
from choreo.cli.run import stopping
from choreo.cli.saga_open import Asked, answering, is_there
from choreo.errors import ConfigurationError
from choreo.runtime.settings import Settings

app = typer.Typer(
    help="The tracker: every saga rebuilt from the log.", no_args_is_help=True, rich_markup_mode="markdown"
)

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Where it keeps what it knows; else CHOREO_TRACKER_STORE.")
]
Group = Annotated[str, typer.Option(help="Its consumer group; instances of one group share the work.")]
Searchable = Annotated[
    list[str] | None, typer.Option(metavar="EVENT.FIELD", help="A payload field that filters may name; repeatable.")
]
HttpHost = Annotated[
    str, typer.Option("--http-host", help="The address to listen at; others than this machine can come to 0.0.0.0.")
]
GROUP = "choreo-tracker"


@app.command("run", epilog="Example: choreo tracker run services.shop --searchable OrderPlaced.order_id")
def run(
    modules: Modules = None,
    store: StoreOption = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    group: Group = GROUP,
    searchable: Searchable = None,
    keep: Annotated[
        str | None, typer.Option(metavar="30d", help="How long a saga is kept after its last change.")
    ] = None,
    health_port: Annotated[int | None, typer.Option(min=0, help="Answer /live, /ready and /metrics there.")] = None,
    http: Annotated[int | None, typer.Option(metavar="PORT", min=0, help="Answer questions over HTTP there.")] = None,
    http_host: HttpHost = "127.0.0.1",
    log_level: Annotated[str, typer.Option(envvar="CHOREO_LOG_LEVEL", help="Least level that is logged.")] = "info",
) -> None:
    """Track the sagas of these services until SIGTERM or Ctrl-C. It writes nothing to the log.

    Killed at any moment it goes on where it was. With PostgreSQL as its store several instances share the work; a SQLite
    file takes one.
    """
    graph = Choreography.of(load_services(modules or [])).graph
    settings = _settings(store, log=log, registry=registry, tracker_keep=keep, health_port=health_port)

    async def work() -> None:
        from choreo.saga.tracker.serving import serve

        async with AsyncExitStack() as around:
            stop = stopping(settings)
            if http is not None:
                await _make_store(settings)
                asked = Asked(modules or [], settings, from_log=False, as_json=False)
                await around.enter_async_context(answering(asked, http_host, http))
            await serve(settings, graph, stop=stop, group=group, searchable=searchable or ())

    run_async(work(), log_level=log_level)


@app.command("serve", epilog="Example: choreo tracker serve services.shop --http 8090")
def serve_(
    modules: Modules = None,
    store: StoreOption = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    http: Annotated[int, typer.Option(metavar="PORT", min=0, help="Where; 0 is any free port.")] = 8090,
    http_host: HttpHost = "127.0.0.1",
) -> None:
    """Answer questions over HTTP from a tracker's store, beside or without the tracker, until SIGTERM or Ctrl-C."""
    settings = _settings(store, log=log, registry=registry)

    if not is_there(settings.tracker_store):  # what the log says now would be answered for ever
        what = f"there is no tracker's store {settings.tracker_store}"
        raise ConfigurationError(what, remedy="let the tracker make it: choreo tracker run MODULE; or name it: --store")

    async def work() -> None:
        stop = stopping(settings)
        async with answering(Asked(modules or [], settings, from_log=False, as_json=False), http_host, http):
            await stop.wait()

    run_async(work())


async def _make_store(settings: Settings) -> None:
    """The store is there from the start, so that it can be asked."""
    from choreo.saga.store import make_tracker_store

    made = make_tracker_store(settings.tracker_store)
    await made.open()
    await made.close()


@app.command("rebuild", epilog="Example: choreo tracker rebuild services.shop")
def rebuild(
    modules: Modules = None,
    store: StoreOption = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    searchable: Searchable = None,
) -> None:
    """Build the tracker's store anew from the log, beside the one there is, then put it in its place.

    That one is served all the while, and a tracker at work goes on from the new one. Afterwards only the log is in it: what
    the log has forgotten is gone.
    """
    graph = Choreography.of(load_services(modules or [])).graph
    settings = _settings(store, log=log, registry=registry)

    async def work() -> int:
        from choreo.saga.tracker.rebuilding import rebuild as build

        return await build(settings, graph, searchable=searchable or ())

    print(f"{run_async(work()):,} sagas")


@app.command("status", epilog="Example: choreo tracker status --json")
def status(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """How far the tracker is: what it has read, how far behind that is, how many sagas are in which state."""
    settings = _settings(store)
    run_async(_status(settings, as_json=as_json))


async def _status(settings: Settings, *, as_json: bool) -> None:
    from choreo.saga.store import make_tracker_store

    asked = make_tracker_store(settings.tracker_store)
    await asked.open(reads_only=True)
    try:
        notes, counts, places = await asked.notes(), await asked.counts(), await asked.progress()
    finally:
        await asked.close()
    behind = json.loads(notes.get("behind", "{}"))
    states: dict[str, int] = {}
    for count in counts:
        states[count.state] = states.get(count.state, 0) + count.sagas
    said = {
        "store": asked.url,
        "partitions": len(places),
        "records_behind": behind.get("records"),
        "seconds_behind": behind.get("seconds"),
        "looked_s_ago": round(time.time() - behind["at_ms"] / 1000, 1) if behind else None,
        "sagas": sum(states.values()),
        "states": states,
    }
    if as_json:
        print_json(said)
    else:
        rows = [{"what": name.replace("_", " "), "is": value} for name, value in said.items() if name != "states"]
        print_rows([*rows, *({"what": state, "is": number} for state, number in sorted(states.items()))], as_json=False)


def _settings(store: str | None, **given: object) -> Settings:
    return settings_with(tracker_store=store, **given)
