"""What the commands about sagas share: where to ask, and opening that."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from choreo.choreography import Choreography
from choreo.cli import common
from choreo.cli.load import load_services
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from choreo.graph import Graph
    from choreo.log import Log
    from choreo.saga.questions import Questions
    from choreo.saga.store import TrackerStore

_MODULES_HELP = "Where the services are; else CHOREO_MODULES."
Texts = list[str] | None


@dataclass(frozen=True)
class Asked:
    """What every command about sagas is told: where things are, and how to answer."""

    modules: list[str]
    settings: Settings
    from_log: bool
    as_json: bool


def asked(
    modules: Annotated[Texts, typer.Option("--module", "-m", help=_MODULES_HELP)] = None,
    log: common.LogOption = None,
    registry: common.RegistryOption = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="The tracker's store; else CHOREO_TRACKER_STORE.")
    ] = None,
    from_log: Annotated[bool, typer.Option("--from-log", help="Read the log itself, without a tracker.")] = False,
    as_json: common.JsonOption = False,
) -> Asked:
    """The shared options."""
    settings = common.settings_with(log=log, registry=registry, tracker_store=store)
    return Asked(modules or [], settings, from_log, as_json)


def command(app: typer.Typer, name: str, *, examples: str) -> Callable[[Callable[..., None]], None]:
    """Registers a command with the options of `asked`; it gets what they say as its first argument."""

    def register(work: Callable[..., None]) -> None:
        shared = dict(inspect.signature(asked, eval_str=True).parameters)
        _, *own = inspect.signature(work, eval_str=True).parameters.values()

        def run(**given: Any) -> None:
            work(asked(**{name: given.pop(name) for name in shared}), **given)

        both = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared.values())]
        vars(run)["__signature__"] = inspect.Signature(both)  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in both}
        app.command(name, help=work.__doc__, epilog=f"Examples:\n\n{examples}")(run)

    return register


@asynccontextmanager
async def answering(asked: Asked, host: str, port: int) -> AsyncIterator[None]:
    """Answer over HTTP while the block runs; it is said where, and the token if it was made now."""
    from choreo.observe.serving import served
    from choreo.web.app import make_app
    from choreo.web.token import token_from

    token, is_new = token_from(asked.settings.tracker_token)
    async with opened(asked) as questions, served(make_app(questions, token), host, port) as taken:
        known = f"with this token: {token}" if is_new else "with the token of CHOREO_TRACKER_TOKEN"
        typer.echo(f"choreo: questions are answered at http://{host}:{taken}/api/v1/sagas {known}", err=True)
        yield


@asynccontextmanager
async def opened(asked: Asked, fits: str = "") -> AsyncIterator[Questions]:
    """Somebody who answers, over the tracker's store; without one, over what the log says now.

    Args:
        fits: the filter of the question that follows; a wrong one is refused before anything is read.
    """
    from choreo.log import open_log
    from choreo.saga.filter_text import parse
    from choreo.saga.questions import Questions
    from choreo.wire import open_registry

    parse(fits)
    graph = Choreography.of(load_services(asked.modules)).graph
    settings = asked.settings
    async with (
        open_log(settings.log, settings.kafka, make=False) as log,
        aclosing(open_registry(settings.registry)) as registry,
        _store(asked, log, graph) as store,
    ):
        yield Questions(store, log, registry, graph)


@asynccontextmanager
async def _store(asked: Asked, log: Log, graph: Graph) -> AsyncIterator[TrackerStore]:
    from choreo.saga.questions.fromlog import read_now
    from choreo.saga.store import make_tracker_store

    if asked.from_log or not is_there(asked.settings.tracker_store):
        begun = time.monotonic()
        async with read_now(log, graph) as read:
            took = time.monotonic() - begun
            if not asked.from_log:
                typer.echo(
                    f"choreo: there is no tracker's store {asked.settings.tracker_store}: read {log.url} itself in {took:.1f} s",
                    err=True,
                )
            yield read
        return
    store = make_tracker_store(asked.settings.tracker_store)
    await store.open(reads_only=True)
    try:
        yield store
    finally:
        await store.close()


def is_there(url: str) -> bool:
    """Whether there can be a store; of a server only opening it tells."""
    return not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).exists()
