"""`choreo demo`: an example choreography at work in this process, audited and summed up. What a flow provides, services/demo.py says."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from choreo.cli.common import FAILED, JsonOption, print_json, run_async, settings_with
from choreo.cli.load import imported
from choreo.errors import ConfigurationError
from choreo.runtime.settings import Settings

if TYPE_CHECKING:
    from services.demo import DemoResult

EXAMPLES = "Examples:\n\nchoreo demo\n\nchoreo demo shop --count 1000 --log kafka://localhost:9092"


def demo(
    name: Annotated[str, typer.Argument(help="Which one: a package of services/ that has a demo.")] = "shop",
    count: Annotated[int | None, typer.Option(min=1, help="How many sagas to start.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed starts the same ones, with the same outcomes.")
    ] = None,
    log: Annotated[str | None, typer.Option(metavar="URL", help="Unless given, a new embedded log.")] = None,
    duplicates: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of first events to publish twice.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run an example's services, start sagas, and check afterwards that everything is where it must be.

    The services' stores are new for each demo, in a temporary folder that is kept. A log that already holds
    events is fine; only one demo at a time can run on it.
    """
    examples = _examples()
    if name not in _names(examples):
        known = ", ".join(_names(examples))
        raise ConfigurationError(f"there is no demo {name!r}", remedy=f"choose one of: {known}")
    flow = imported(f"services.{name}.demo")
    folder = Path(tempfile.mkdtemp(prefix="choreo-demo-"))
    registry = os.environ.get("CHOREO_REGISTRY") or str(examples.parent / "schemas")
    log, store = log or f"sqlite:///{folder / 'log.db'}", f"sqlite:///{folder}/{{service}}.db"
    settings = settings_with(log=log, store=store, registry=registry, create_topics=True)
    given: dict[str, Any] = {"count": count, "seed": seed, "duplicates": duplicates}
    wanted = {option: value for option, value in given.items() if value is not None}
    level = os.environ.get("CHOREO_LOG_LEVEL", "critical")  # what fails on purpose is told by the books
    result: DemoResult = run_async(flow.run(settings, **wanted), log_level=level)
    if as_json:
        print_json({"log": log, "stores": store, **result.data, "findings": result.findings})
    else:
        _show(result, settings)
        if result.sagas and not log.startswith("memory:"):  # which is gone now
            run_async(_show_sagas(f"services.{name}", settings, result.sagas))
    if result.findings:
        raise typer.Exit(FAILED)


def _examples() -> Path:
    """The folder services/ of the checkout."""
    try:
        package = imported("services")
    except ConfigurationError as error:
        remedy = "run `choreo demo` in a checkout of choreo's repository, where services/ is"
        raise ConfigurationError("the examples cannot be imported", why=error.what, remedy=remedy) from error
    return Path(package.__path__[0])


def _names(examples: Path) -> list[str]:
    return sorted(found.parent.name for found in examples.glob("*/demo.py"))


def _show(result: DemoResult, settings: Settings) -> None:
    typer.secho(f"\n{result.title}\n", bold=True)
    for label, count in result.counts.items():
        shown = count if isinstance(count, str) else f"{count:,}"
        print(f"  {label:<52}{shown:>10}")
    if result.findings:
        typer.secho("\nThe books are wrong:", fg="red")
    else:
        typer.secho(f"\n✓ {result.verdict}", fg="green")
    for finding in result.findings:
        print(f"  {finding}")
    commands = (f"  # {meaning}\n  {_here(command, settings)}" for meaning, command in result.look.items())
    print("\nWhere to look next", *commands, sep="\n")


async def _show_sagas(module: str, settings: Settings, keys: Sequence[str]) -> None:
    """What `choreo saga show` and `why` say about some of the sagas."""
    from choreo.cli import saga_answers
    from choreo.cli.saga_open import Asked

    asked = Asked([module], settings, from_log=True, as_json=False)
    for key in keys:
        _title(f"choreo saga show {key} -m {module} --log {settings.log}", settings)
        await saga_answers.show(asked, key, "tree", None, every=False)
    _title(f"choreo saga why {keys[-1]} -m {module} --log {settings.log}", settings)
    await saga_answers.why(asked, keys[-1], None)


def _title(command: str, settings: Settings) -> None:
    typer.secho(f"\n$ {_here(command, settings)}", dim=True)


def _here(command: str, settings: Settings) -> str:
    """The command as it works in the user's shell: with choreo where it is, and with the schemas of this demo."""
    if not command.startswith("choreo "):
        return command
    program = "choreo" if shutil.which("choreo") else sys.argv[0]
    elsewhere = Path(settings.registry) != Path("schemas").absolute() and f"--log {settings.log}" in command
    return program + command.removeprefix("choreo") + (f" --registry {settings.registry}" if elsewhere else "")
