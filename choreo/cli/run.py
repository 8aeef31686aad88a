"""`choreo run` and `choreo graph`: services at work until a signal says stop, and a picture of who reacts to what."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Annotated, Literal

import typer

from choreo.choreography import Choreography
from choreo.cli.common import (
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    LogOption,
    Modules,
    RegistryOption,
    run_async,
    settings_with,
)
from choreo.cli.load import load_services
from choreo.runtime.settings import Settings
from choreo.service import Service

RUN_EXAMPLES = "Examples:\n\nchoreo run services.shop\n\nchoreo run services.shop:payments --log kafka://localhost:9092"
_UNWIND = 10.0
"""Seconds beyond the grace that a stop may take: what is done is committed and published, the groups are left."""
GRAPH_EXAMPLES = "Examples:\n\nchoreo graph services.shop\n\nchoreo graph services.shop --format mermaid > shop.mmd"


Worker = Annotated[int | None, typer.Option(hidden=True, help="The number of this process among several.")]


def run(
    modules: Modules = None,
    log: LogOption = None,
    registry: RegistryOption = None,
    create_topics: Annotated[bool | None, typer.Option(help="Missing topics; created by embedded logs only.")] = None,
    health_port: Annotated[int | None, typer.Option(min=0, help="Answer /live, /ready and /metrics there.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="So many processes that share the work.")] = 1,
    log_level: Annotated[str, typer.Option(envvar="CHOREO_LOG_LEVEL", help="Least level that is logged.")] = "info",
    worker: Worker = None,
) -> None:
    """Run services until SIGTERM or Ctrl-C. Start it again, here or elsewhere, to share the work.

    On the first signal running handlers get CHOREO_STOP_GRACE seconds to finish. A second one ends the process
    at once (exit code 130), which loses nothing: what was not finished is done again at the next start.
    """
    services = load_services(modules or [])
    settings = settings_with(log=log, registry=registry, create_topics=create_topics, health_port=health_port)
    if processes > 1:
        code = run_async(_supervise(modules or [], settings, processes, log_level), log_level=log_level)
        raise typer.Exit(code)
    said = {} if worker is None else {"process": worker}
    run_async(_run(services, settings, worker), log_level=log_level, said=said)


def stopping(settings: Settings, *, silent: bool = False) -> asyncio.Event:
    """Set by the first signal. A second one ends the process at once, and so does time."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    bound = settings.stop_grace + _UNWIND

    def on_signal() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        if not silent:
            print("choreo: stopping; a second signal ends it at once", file=sys.stderr, flush=True)
        stop.set()
        # A thread, and os._exit: whatever hangs, a handler's thread or the loop itself, the process ends.
        late = threading.Timer(bound, _end, [bound])
        late.daemon = True
        late.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _end(bound: float) -> None:
    print(f"choreo: not stopped after {bound:.0f} s: ending at once, nothing is lost", file=sys.stderr, flush=True)
    os._exit(FAILED)


async def _run(services: list[Service], settings: Settings, worker: int | None) -> None:
    from choreo.observe.exporting import exporting
    from choreo.runtime.run import run_services

    stop = stopping(settings, silent=worker is not None)
    if worker is not None:  # the supervisor's end of the pipe closes when it dies
        asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    with exporting([service.name for service in services]):
        await run_services(services, settings, stop=stop)


async def _supervise(modules: list[str], settings: Settings, processes: int, log_level: str) -> int:
    from choreo.runtime.supervisor import Supervisor

    given = {"LOG": settings.log, "REGISTRY": settings.registry, "LOG_LEVEL": log_level}
    if settings.create_topics is not None:
        given["CREATE_TOPICS"] = str(settings.create_topics)

    def command(number: int) -> tuple[list[str], dict[str, str]]:
        port = {} if not settings.health_port else {"HEALTH_PORT": str(settings.health_port + number)}
        environment = {f"CHOREO_{name}": value for name, value in (given | port).items()}
        program = [sys.executable, "-c", "import sys; from choreo.cli import main; sys.exit(main())"]
        return [*program, "run", *modules, "--worker", str(number)], {**os.environ, **environment}

    # A little more than a process gives itself.
    patience = settings.stop_grace + _UNWIND + 5
    supervisor = Supervisor(processes, command, patience=patience, hopeless=WRONG_USAGE)
    longer = settings.model_copy(update={"stop_grace": patience})
    return await supervisor.run(stopping(longer))


Format = Annotated[Literal["text", "mermaid", "json"], typer.Option("--format", "-f", help="What to print.")]


def graph(modules: Modules = None, output: Format = "text") -> None:
    """Show who reacts to what: every event, its handlers, and what they emit.

    Nothing is run and no log is asked: the graph is read from the handlers' declarations.
    """
    render = {"text": Choreography.to_text, "mermaid": Choreography.to_mermaid, "json": Choreography.to_json}
    print(render[output](Choreography.of(load_services(modules or []))))
