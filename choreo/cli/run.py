"""`choreo run` and `choreo graph`: services at work until a signal says stop, and a picture of who reacts to what."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Annotated, Literal

import typer

from choreo.choreography import Choreography
from choreo.cli.common import INTERRUPTED, LogOption, Modules, RegistryOption, run_async, settings_with
from choreo.cli.load import load_services
from choreo.runtime.settings import Settings
from choreo.service import Service

RUN_EXAMPLES = "Examples:\n\nchoreo run services.shop\n\nchoreo run services.shop:payments --log kafka://localhost:9092"
GRAPH_EXAMPLES = "Examples:\n\nchoreo graph services.shop\n\nchoreo graph services.shop --format mermaid > shop.mmd"


def run(
    modules: Modules = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    create_topics: Annotated[bool | None, typer.Option(help="Missing topics; created by embedded logs only.")] = None,
    log_level: Annotated[str, typer.Option(envvar="CHOREO_LOG_LEVEL", help="Least level that is logged.")] = "info",
) -> None:
    """Run services until SIGTERM or Ctrl-C. Start it again, here or elsewhere, to share the work.

    On the first signal running handlers get CHOREO_STOP_GRACE seconds to finish. A second one ends the process
    at once (exit code 130), which loses nothing: what was not finished is done again at the next start.
    """
    services = load_services(modules or [])
    settings = settings_with(log=log, registry=registry, create_topics=create_topics)
    run_async(_run(services, settings), log_level=log_level)


async def _run(services: list[Service], settings: Settings) -> None:
    from choreo.runtime.run import run_services

    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        print("choreo: stopping; a second signal ends it at once", file=sys.stderr, flush=True)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await run_services(services, settings, stop=stop)


Format = Annotated[Literal["text", "mermaid", "json"], typer.Option("--format", "-f", help="What to print.")]


def graph(modules: Modules = None, output: Format = "text") -> None:
    """Show who reacts to what: every event, its handlers, and what they emit.

    Nothing is run and no log is asked: the graph is read from the handlers' declarations.
    """
    render = {"text": Choreography.to_text, "mermaid": Choreography.to_mermaid, "json": Choreography.to_json}
    print(render[output](Choreography.of(load_services(modules or []))))
