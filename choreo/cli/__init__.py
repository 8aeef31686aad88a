"""The `choreo` command. Each command is a file of its own; what is heavy is imported when a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from choreo.cli import check, common, demo, dlq, doctor, publish, run, saga, topics, tracker
from choreo.errors import ChoreoError
from choreo.printable import printable


class _Commands(TyperGroup):
    """Puts the real `schema` in the place of its stand-in when it is asked for: it needs Avro, help does not."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:1] == ["schema"]:
            from choreo.cli import schema

            self.commands["schema"] = typer.main.get_group(schema.app)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 it failed, or problems were found; 2 wrong usage or configuration; "
    "3 the log, the registry or a store cannot be reached; 130 interrupted.",
)
app.command(epilog=run.RUN_EXAMPLES)(run.run)
app.command(epilog=publish.EXAMPLES)(publish.publish)
app.command(epilog=run.GRAPH_EXAMPLES)(run.graph)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
app.add_typer(topics.app, name="topics")
app.add_typer(dlq.app, name="dlq")
app.add_typer(saga.app, name="saga")
app.add_typer(tracker.app, name="tracker")
app.command("schema", help="Contracts: write, check and show the Avro schemas of events.")(lambda: None)
app.command(epilog=demo.EXAMPLES)(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"choreo {version('choreo')}")
        raise typer.Exit


@app.callback()
def _global(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", envvar="CHOREO_DEBUG", help="Show errors' tracebacks.")] = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Event-driven choreography on Kafka: run services, publish events, see what flows."""
    ctx.obj["debug"] = debug


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (the process's own unless given) and return its exit code."""
    options = {"debug": False}
    try:
        ended = typer.main.get_command(app).main(args=args, prog_name="choreo", standalone_mode=False, obj=options)
        return ended if isinstance(ended, int) else 0
    except typer.TyperException as error:
        if str(error):  # it has no words where help was shown instead
            place = getattr(getattr(error, "ctx", None), "command_path", "choreo")
            print(f"choreo: {error.format_message()} ({place} --help)", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - nobody wants a traceback who did not ask for one
        if options["debug"]:
            traceback.print_exception(error)
        expected = isinstance(error, ChoreoError)
        message = error if expected else f"{type(error).__name__}: {error} (choreo --debug ... shows where)"
        print("choreo: " + "\n".join(map(printable, str(message).splitlines())), file=sys.stderr)
        return common.exit_code(error)
