"""The findings that are known and accepted for now: a file to be committed, so that new ones stand out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from choreo.check.finding import Finding
from choreo.check.run import Report
from choreo.errors import ConfigurationError

_VERSION = 1


def write(file: Path, reports: Iterable[Report]) -> int:
    """Write all findings of these reports to a baseline; returns how many they are.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    found = sorted((f for report in reports for f in report.findings), key=lambda f: (f.code, f.handler, f.about))
    rows = [{"fingerprint": f.fingerprint, "code": f.code, "handler": f.handler, "message": f.message} for f in found]
    text = json.dumps({"version": _VERSION, "findings": rows}, indent=2, ensure_ascii=False)
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"baseline {file} cannot be written", why=str(error)) from error
    return len(rows)


def read(file: Path) -> frozenset[str]:
    """The fingerprints in a baseline.

    Raises:
        ConfigurationError: it is not there, or is no baseline.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] == _VERSION:
            return frozenset(row["fingerprint"] for row in data["findings"])
        why = f"it has version {data['version']}"
    except FileNotFoundError:
        why = "it is not there"
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise ConfigurationError(f"baseline {file} cannot be read", why=why, remedy="write it with --write-baseline")


def without(reports: Sequence[Report], known: frozenset[str]) -> tuple[list[Report], int]:
    """The reports without known findings, and how many known ones are not found any more."""

    def is_new(finding: Finding) -> bool:
        return finding.fingerprint not in known

    still = {finding.fingerprint for report in reports for finding in report.findings} & known
    left = [replace(report, findings=tuple(filter(is_new, report.findings))) for report in reports]
    return left, len(known - still)
