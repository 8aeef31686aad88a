"""The options that all programs here have, and how they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

import structlog


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--kafka` and `--json`; what is logged goes to stderr from now on, since stdout is the report's."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--kafka", metavar="HOST:PORT", help="a running broker; started for the run unless given")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def tell(arguments: argparse.Namespace, report: Any, lines: Iterable[str]) -> None:
    """Print the report: the lines, which are not made if JSON is wanted."""
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(lines))
