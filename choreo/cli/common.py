"""What the commands share: options, exit codes, settings, and how they print."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import pydantic
import typer
from pydantic_core import to_json
from pydantic_settings import SettingsError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from choreo.errors import ConfigurationError, LogUnavailableError, RegistryUnavailableError, StoreUnavailableError
from choreo.printable import printable
from choreo.runtime.settings import Settings

T = TypeVar("T")

FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

LogOption = Annotated[str | None, typer.Option("--log", metavar="URL", help="Where the log is; else CHOREO_LOG.")]
RegistryOption = Annotated[
    str | None, typer.Option("--registry", metavar="FOLDER|URL", help="Where the schemas are; else CHOREO_REGISTRY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_MODULES_HELP = "Modules with services; CHOREO_MODULES unless given."
Modules = Annotated[list[str] | None, typer.Argument(metavar="MODULE[:SERVICE]", help=_MODULES_HELP)]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def exit_code(error: Exception) -> int:
    """The exit code that tells scripts what kind of error this is."""
    if isinstance(error, (LogUnavailableError, RegistryUnavailableError, StoreUnavailableError)):
        return UNREACHABLE
    return WRONG_USAGE if isinstance(error, ConfigurationError) else FAILED


def settings_with(**given: Any) -> Settings:
    """Settings from the environment, with the options that were given on top.

    Raises:
        ConfigurationError: a value cannot be used; the variable is named.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = f"CHOREO_{first['loc'][0]}".upper()
        raise ConfigurationError(f"{name} is {first['input']!r}", why=first["msg"]) from error
    except SettingsError as error:
        raise ConfigurationError(f"a CHOREO_ variable cannot be read: {error}", remedy="is it JSON?") from error


def run_async(
    work: Coroutine[Any, Any, T], *, log_level: str = "warning", said: Mapping[str, object] | None = None
) -> T:
    """Run to the end, with logs on standard error, so that standard output holds the command's result alone.

    Args:
        said: what every line of the log says besides.
    """
    from choreo.observe.logs import configure_logging
    from choreo.runtime.run import run_to_end

    with closing(work):
        configure_logging(level=log_level, said=said)
        return run_to_end(work)


def json_text(data: Any) -> str:
    """One line of JSON; what JSON does not know (bytes, decimals, times) as text."""
    return to_json(_plain(data), bytes_mode="base64", inf_nan_mode="strings", fallback=str).decode()


def _plain(data: Any) -> Any:
    """The data with its decimals written out, so that a zero of nine places is no `0E-9`."""
    if isinstance(data, dict):
        return {name: _plain(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    return f"{data:f}" if isinstance(data, Decimal) else data


def print_json(data: Any) -> None:
    """Print one line of JSON, at once."""
    print(json_text(data), flush=True)


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows of the same fields: as JSON, as a table on a terminal, elsewhere as tab-separated lines."""
    if as_json:
        print_json(rows)
    elif not sys.stdout.isatty():
        for row in rows:
            print(*(printable(str(value)) for value in row.values()), sep="\t")
    elif rows:
        table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(printable(str(value)), _STYLES.get(str(value), "")) for value in row.values()))
        Console().print(table)
