"""The `choreo` command. Each command is a file of its own; what is heavy is imported when a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from choreo.cli import doctor, graph, publish, run, topics
from choreo.cli.common import FAILED, exit_code
from choreo.errors import ChoreoError

_EPILOG = """Exit codes: 0 done; 1 it failed, or problems were found; 2 wrong usage or configuration; 3 the log, the
registry or a store cannot be reached; 130 interrupted."""

_LATE = {
    "schema": ("choreo.cli.schema", "app", "Contracts: write, check and show the Avro schemas of events."),
    "demo": ("choreo.cli.demo", "demo", "Run an example choreography and check its books."),
}
"""Commands whose modules are imported when they are asked for: where they are, and what `--help` says meanwhile."""


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the real command in the place of its stand-in, then go on as usual."""
        if args and args[0] in _LATE:
            module, attribute, _ = _LATE[args[0]]
            self.commands[args[0]] = _command(args[0], getattr(import_module(module), attribute))
        return super().resolve_command(ctx, args)


def _command(name: str, found: Any) -> Any:
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        command = typer.main.get_command(single)
    command.name = name
    return command


@dataclass
class _State:
    """What the global options say. Read by `main` when a command has failed."""

    debug: bool = False


app = typer.Typer(
    cls=_Commands,
    name="choreo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
app.command("run", epilog=run.EXAMPLES)(run.run)
app.command("publish", epilog=publish.EXAMPLES)(publish.publish)
app.command("graph", epilog=graph.EXAMPLES)(graph.graph)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(topics.app, name="topics")
for _name, (_, _, _help) in _LATE.items():
    app.command(_name, help=_help)(lambda: None)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"choreo {version('choreo')}")
        raise typer.Exit


@app.callback()
def _global(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CHOREO_DEBUG", help="Show the traceback of an error too.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Event-driven choreography on Kafka: run services, publish events, see what flows."""
    ctx.obj.debug = debug


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (the process's own unless given) and return its exit code."""
    state = _State()
    command = typer.main.get_command(app)
    try:
        ended = command.main(args=args, prog_name="choreo", standalone_mode=False, obj=state)
        return ended if isinstance(ended, int) else 0
    except typer.TyperException as error:
        place = getattr(getattr(error, "ctx", None), "command_path", "choreo")
        return _report(None, f"{error.format_message()} ({place} --help)" if str(error) else "", error.exit_code)
    except typer.Abort:
        return _report(None, "aborted", FAILED)
    except ChoreoError as error:
        return _report(error if state.debug else None, str(error), exit_code(error))
    except Exception as error:  # noqa: BLE001 - nobody wants a traceback who did not ask for one
        hint = "" if state.debug else " (choreo --debug ... shows where)"
        return _report(error if state.debug else None, f"{type(error).__name__}: {error}{hint}", FAILED)


def _report(error: BaseException | None, message: str, code: int) -> int:
    if error is not None:
        traceback.print_exception(error)
    if message:
        print(f"choreo: {message}", file=sys.stderr)
    return code
