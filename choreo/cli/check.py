"""`choreo check`: what the declarations give away before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from choreo.choreography import Choreography
from choreo.cli import common
from choreo.cli.load import load_choreographies
from choreo.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from choreo.check import Report

EXAMPLES = (
    "Examples:\n\nchoreo check services.shop\n\nchoreo check services --format sarif > choreo.sarif\n\n"
    "choreo check services --baseline known.json --write-baseline\n\nchoreo check --explain C07"
)
_COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}

Format = Annotated[Literal["text", "json", "sarif", "github"], typer.Option("--format", "-f", help="What to print.")]
Baseline = Annotated[
    Path | None, typer.Option("--baseline", metavar="FILE", help="Findings that are known and not to be told.")
]
WriteBaseline = Annotated[bool, typer.Option("--write-baseline", help="Write all findings to the baseline file.")]
Explain = Annotated[str | None, typer.Option("--explain", metavar="CODE", help="Say all about a rule, and no more.")]


def check(
    modules: common.Modules = None,
    output: Format = "text",
    baseline: Baseline = None,
    write_baseline: WriteBaseline = False,
    explain: Explain = None,
) -> None:
    """Look for what is wrong in a choreography; exit code 1 if there are errors or warnings.

    Nothing is run and no log is asked. The services of all modules are one choreography; a package without
    services of its own stands for its sub-packages, each a choreography of its own.
    """
    if explain is not None:
        print(_explained(explain))
        return
    if write_baseline and baseline is None:
        raise ConfigurationError("--write-baseline names no file", remedy="add --baseline FILE")
    from choreo.check import baseline as known

    reports = _reports(modules or [])
    if baseline is not None and write_baseline:
        print(f"{_count(known.write(baseline, reports))} written to {baseline}", file=sys.stderr)
        return
    if baseline is not None:
        reports, gone = known.without(reports, known.read(baseline))
        if gone:
            are = "is" if gone == 1 else "are"
            print(f"choreo: {_count(gone)} of {baseline} {are} gone (--write-baseline)", file=sys.stderr)
    _print(reports, output)
    if any(finding.severity != "info" for report in reports for finding in report.findings):
        raise typer.Exit(common.FAILED)


def _count(number: int) -> str:
    return f"{number} finding{'s' * (number != 1)}"


def _reports(modules: list[str]) -> list[Report]:
    from choreo.check import check as look
    from choreo.check import check_apart

    choreographies = {name: Choreography.of(services) for name, services in load_choreographies(modules).items()}
    check_apart(choreographies)
    return [look(choreography, name) for name, choreography in choreographies.items()]


def _print(reports: Sequence[Report], output: str) -> None:
    from choreo.check import formats
    from choreo.check.sarif import sarif

    if output == "text":
        for line in formats.text(reports).splitlines():
            word, space, rest = line.partition(" ")
            typer.echo(typer.style(word, fg=_COLOURS.get(word), bold=word in _COLOURS) + space + rest)
        return
    render = {"json": formats.as_json, "github": formats.github, "sarif": sarif}
    if said := render[output](reports):
        print(said)


def _explained(code: str) -> str:
    from choreo.check import RULES, formats

    rules = {rule.code: rule for rule in RULES}
    if code.upper() not in rules:
        known = ", ".join(f"{rule.code} ({rule.title})" for rule in RULES)
        raise ConfigurationError(f"there is no rule {code!r}", remedy=f"the rules are: {known}")
    return formats.explanation(rules[code.upper()])
