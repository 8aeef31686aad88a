"""Reports as SARIF 2.1.0, the format that code scanning services read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from choreo.check.finding import Finding, Path, Rule
from choreo.check.formats import explanation, file_of
from choreo.check.rules import RULES
from choreo.check.run import Report

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(reports: Sequence[Report]) -> str:
    """One run with all findings; their fingerprints let a service know them again."""
    driver = {"name": "choreo check", "version": version("choreo"), "rules": [_descriptor(rule) for rule in RULES]}
    numbers = {rule.code: number for number, rule in enumerate(RULES)}
    results = [_result(finding, numbers[finding.code]) for report in reports for finding in report.findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _descriptor(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.title.split()),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.means},
        "help": {"text": explanation(rule)},
    }


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message}. To mend it: {finding.remedy}."},
        "locations": [_location(finding)],
        "partialFingerprints": {"choreo/v1": finding.fingerprint},
    }
    if finding.paths:
        found["codeFlows"] = [{"threadFlows": [_flow(path) for path in finding.paths]}]
    return found


def _location(finding: Finding) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [_logical(finding.handler)]}
    if finding.place:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": quote(file_of(finding.place))},
            "region": {"startLine": finding.place.line},
        }
    return location


def _flow(path: Path) -> dict[str, Any]:
    steps = [{"location": {"message": {"text": name}, "logicalLocations": [_logical(name)]}} for name in path]
    return {"locations": steps}


def _logical(name: str) -> dict[str, str]:
    return {"fullyQualifiedName": name}
