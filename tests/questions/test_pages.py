"""The pages about questions say what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from choreo.cli.saga import app
from choreo.saga.export import FORMATS
from choreo.saga.filters import FIELDS, STATES
from choreo.saga.views.lines import DUTY_MARKS
from choreo.web.openapi import document

CHOREO = str(Path(sys.executable).parent / "choreo")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "inspecting.md").read_text("utf-8")
HTTP = (ROOT / "docs" / "http.md").read_text("utf-8")
SHOWN = re.findall(r"^\$ choreo (saga .+)\n((?:(?!\$ |```).*\n)*)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_page_shows_is_what_comes(command: str, shown: str, shop_log: str) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "CHOREO_LOG": shop_log,
        "CHOREO_MODULES": "services.shop",
        "CHOREO_REGISTRY": "schemas",
    }
    run = [CHOREO, *command.split(), "--from-log"]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert words(shown) <= words(done.stdout)


def words(text: str) -> set[str]:
    """Event types, handlers and signs: what is the same in every run."""
    return set(re.findall(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+|[a-z]+\.[a-z_]+\b|[✓✗·↶≠█▶◀●]", text))


def test_all_that_filters_know_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("| field | is |") : PAGE.index("What cannot be read")]))
    assert set(FIELDS) <= told
    states = re.findall(r"^\| `([a-z-]+)` \| ", PAGE[PAGE.index("## States") : PAGE.index("## Filters")], re.MULTILINE)
    assert sorted(states) == sorted(STATES)


def test_all_commands_signs_and_formats_are_told() -> None:
    commands = {command.name for command in app.registered_commands}
    assert commands <= set(re.findall(r"choreo saga (\w+)", PAGE))
    assert {mark for mark, _ in DUTY_MARKS.values()} <= set(re.findall(r"`(.)`", PAGE))
    assert set(FORMATS) <= set(re.findall(r"`([\w-]+)`", PAGE))


def test_every_path_is_told() -> None:
    table = HTTP[HTTP.index("| `GET /api/v1/…`") : HTTP.index("`{saga}` is any")]
    told = set()
    for cell in re.findall(r"^\| (.+?) \| ", table, re.MULTILINE)[1:]:
        names = re.findall(r"`([^`]+)`", cell)
        told |= {name if not name.startswith("/") else f"sagas/{{saga}}{name}" for name in names}
    paths = {path.removeprefix("/api/v1/") for path in document()["paths"] if path.startswith("/api/v1/")}
    assert told == paths


def test_every_status_is_told() -> None:
    told = set(re.findall(r"^\| (\d+) \| ", HTTP, re.MULTILINE))
    assert told == {name.removeprefix("Problem") for name in document()["components"]["responses"]}
