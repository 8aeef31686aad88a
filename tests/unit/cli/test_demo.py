"""`choreo demo` with a flow that it has never heard of."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHOREO = Path(sys.executable).parent / "choreo"
DEMO = """
from types import SimpleNamespace

async def run(settings, *, count=3, seed=1, duplicates=0.5):
    wrong = ["one is missing"] if count > 9 else []
    return SimpleNamespace(
        title="Hello", counts={"greetings": count * 1000, "slowest": "4 ms", "duplicates": duplicates}, verdict="All met.",
        findings=wrong, sagas=(), look={"greetings in the log": f"choreo topics tail greetings --log {settings.log}", "all": "ls /"},
        data={"started": count, "seed": seed, "duplicates": duplicates},
    )
"""


@pytest.fixture
def demo(tmp_path):
    for name in ("hello", "bye"):
        folder = tmp_path / "services" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "demo.py").write_text(DEMO)
    (tmp_path / "services" / "__init__.py").touch()
    (tmp_path / "services" / "no_demo").mkdir()

    def run(*arguments):
        environment = {"PATH": "/nowhere", "TMPDIR": str(tmp_path)}
        command = [str(CHOREO), "demo", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_a_flow_shows_what_it_counted(demo):
    done = demo("hello", "--log", "memory://")
    assert done.returncode == 0, done.stderr
    first, *lines = [line for line in done.stdout.splitlines() if line]
    assert first == "Hello"
    assert [line.split() for line in lines[:3]] == [
        ["greetings", "3,000"],
        ["slowest", "4", "ms"],
        ["duplicates", "0.5"],
    ]
    assert lines[3] == "✓ All met."
    assert lines[5:] == [
        "  # greetings in the log",
        f"  {CHOREO} topics tail greetings --log memory://",
        "  # all",
        "  ls /",
    ]


def test_a_flow_gets_what_was_given_and_keeps_its_own_defaults(demo):
    result = json.loads(demo("bye", "--json", "--count", "8", "--log", "memory://").stdout)
    assert result.pop("stores").endswith("/{service}.db")
    assert result == {"log": "memory://", "started": 8, "seed": 1, "duplicates": 0.5, "findings": []}


def test_findings_are_said_and_fail(demo):
    done = demo("hello", "--count", "10")
    assert done.returncode == 1
    assert "The books are wrong:\n  one is missing\n" in done.stdout
    assert "All met" not in done.stdout


@pytest.mark.parametrize("name", ["shop", "no_demo", "../hello", ""])
def test_only_packages_with_a_demo_are_one(demo, name):
    done = demo(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no demo {name!r}" in done.stderr
    assert "choose one of: bye, hello" in done.stderr
