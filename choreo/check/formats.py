"""Reports as people and other programs read them: text, JSON, GitHub annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from choreo.check.finding import Finding, Place, Rule
from choreo.check.run import Report

_WORDS = {"error": ("error", "errors"), "warning": ("warning", "warnings"), "info": ("note", "notes")}
_WIDTH = 100
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def file_of(place: Place) -> str:
    """A place's file as seen from the current folder, if it is below."""
    path = Path(place.file)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def text(reports: Sequence[Report]) -> str:
    """For reading: each choreography with its findings, and each finding with its paths and remedy."""
    return "\n".join(line for report in reports for line in _lines(report)).lstrip("\n")


def _lines(report: Report) -> Iterator[str]:
    sizes = f"services: {report.services}, handlers: {report.handlers}, events: {report.events}"
    yield f"\n{report.name} ({sizes}): {_counts(report)}"
    for finding in report.findings:
        where = f" ({file_of(finding.place)}:{finding.place.line})" if finding.place else ""
        yield f"\n{finding.severity} {finding.code} {finding.handler}{where}"
        yield f"  {finding.message}"
        yield from (f"    {' -> '.join(path)}" for path in finding.paths)
        yield f"  {finding.remedy}"
    if report.gave_up:
        yield (
            f"\n{report.gave_up} questions about paths were given up after very many steps: there may be more findings of "
            "C07, C11 and C14"
        )


def _counts(report: Report) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    said = [f"{counts[kind]} {words[counts[kind] > 1]}" for kind, words in _WORDS.items() if counts[kind]]  # type: ignore[index]
    return ", ".join(said) or "nothing found"


def as_json(reports: Sequence[Report]) -> str:
    """One document; `version` grows when a reader of the older shape would err."""
    choreographies = [
        {
            "name": report.name,
            "services": report.services,
            "handlers": report.handlers,
            "events": report.events,
            "gave_up": report.gave_up,
            "findings": [_plain(finding) for finding in report.findings],
        }
        for report in reports
    ]
    return json.dumps({"version": 1, "choreographies": choreographies}, indent=2, ensure_ascii=False)


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "handler": finding.handler,
        "about": finding.about,
        "message": finding.message,
        "remedy": finding.remedy,
        "paths": finding.paths,
        "file": file_of(finding.place) if finding.place else None,
        "line": finding.place.line if finding.place else None,
        "fingerprint": finding.fingerprint,
    }


def github(reports: Sequence[Report]) -> str:
    """Workflow commands: GitHub shows them at the handlers' lines."""
    return "\n".join(_annotation(finding) for report in reports for finding in report.findings)


def _annotation(finding: Finding) -> str:
    at = {"title": f"{finding.code} {finding.handler}"}
    if finding.place:
        at = {"file": file_of(finding.place), "line": str(finding.place.line), **at}
    parameters = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in at.items())
    paths = [" -> ".join(path) for path in finding.paths]
    said = "\n".join([finding.message, *paths, finding.remedy])
    return f"::{_COMMANDS[finding.severity]} {parameters}::{_escaped(said)}"


def _escaped(value: str, further: str = "") -> str:
    for char in "%\r\n" + further:
        value = value.replace(char, f"%{ord(char):02X}")
    return value


def explanation(rule: Rule) -> str:
    """All that is to be said about a rule."""
    said = (rule.means, f"Why: {rule.why}", f"What to do: {rule.mend}")
    example = "\n".join(f"    {line}".rstrip() for line in rule.example.strip("\n").splitlines())
    return "\n\n".join((f"{rule.code} {rule.title}", *(fill(part, _WIDTH) for part in said), "It finds:", example))
