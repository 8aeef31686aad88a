"""What the commands share: options, exit codes, settings, and how they print."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from choreo.errors import (
    ChoreoError,
    ConfigurationError,
    LogUnavailableError,
    RegistryUnavailableError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from choreo.runtime.settings import Settings

T = TypeVar("T")

PROBE_TOPIC = "choreo.doctor"
"""Where `choreo doctor` tries whether the log can be written; nobody else cares what is in it."""

FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

LogOption = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="Where the log is; CHOREO_LOG unless given.")
]
RegistryOption = Annotated[
    str | None, typer.Option("--registry", metavar="FOLDER|URL", help="Where the schemas are; CHOREO_REGISTRY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Modules = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODULE[:SERVICE]", help="Modules with services; CHOREO_MODULES unless given."),
]


def exit_code(error: ChoreoError) -> int:
    """The exit code that tells scripts what kind of error this is."""
    if isinstance(error, (LogUnavailableError, RegistryUnavailableError, StoreUnavailableError)):
        return UNREACHABLE
    return WRONG_USAGE if isinstance(error, ConfigurationError) else FAILED


def settings_with(**given: Any) -> Settings:
    """Settings from the environment, with the options that were given on top.

    Raises:
        ConfigurationError: a value cannot be used; the variable is named.
    """
    import pydantic
    from pydantic_settings import SettingsError

    from choreo.runtime.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = "CHOREO_" + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise ConfigurationError(f"{name} is {first['input']!r}", why=first["msg"]) from error
    except SettingsError as error:
        raise ConfigurationError(f"a CHOREO_ variable cannot be read: {error}", remedy="is it JSON?") from error


def run_async(work: Coroutine[Any, Any, T], *, log_level: str = "warning") -> T:
    """Run to the end, with logs on standard error, so that standard output holds the command's result alone."""
    from choreo.observe.logs import configure_logging

    try:
        configure_logging(level=log_level)
    except ConfigurationError:
        work.close()
        raise
    return asyncio.run(work)


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: nothing in it is markup, and lines wrap on terminals only."""
    from rich.console import Console

    on_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=None if on_terminal else 1_000_000)


def json_text(data: Any) -> str:
    """One line of JSON; what JSON does not know (bytes, decimals, times) as text."""
    from pydantic_core import to_json

    return to_json(data, bytes_mode="base64", inf_nan_mode="strings", fallback=str).decode()


def print_json(data: Any) -> None:
    """Print one line of JSON, at once."""
    print(json_text(data), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; elsewhere tab-separated lines without a heading."""
    if not sys.stdout.isatty():
        for row in rows:
            print(*row, sep="\t")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else str(cell) for cell in row))
    console().print(table)
