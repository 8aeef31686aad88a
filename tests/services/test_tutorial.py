"""The tutorial, followed word for word: its file, its commands, its test."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from services.signup import services
from tests.servers.process import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text("utf-8")
PROGRAM, TEST = (re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[part] for part in (slice(0, 2), 2))
CHOREO = str(Path(sys.executable).parent / "choreo")


def commands(after: str) -> list[list[str]]:
    """The commands of the block that follows these words."""
    block = re.search(r"```sh\n(.*?)```", PAGE[PAGE.index(after) :], re.DOTALL)
    assert block is not None
    lines = [shlex.split(line) for line in block[1].splitlines()]
    return [[CHOREO, *words[1:]] if words[0] == "choreo" else words for words in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "signup.py").write_text("".join(PROGRAM), "utf-8")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def environment() -> dict[str, str]:
    """Without what this process has been told about logs and stores."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHOREO_")}


def test_the_program_has_forty_lines_at_most():
    written = [line for line in "".join(PROGRAM).splitlines() if line.strip()]
    assert len(written) <= 40


def test_what_is_looked_at_before_it_runs(folder):
    graph, check, write = (run(command, folder) for command in commands("## 3."))
    assert "signup-emails.greet -> GreetingSent" in graph
    assert "nothing found" in check
    assert write.count("written") == 3
    assert (folder / "schemas/signup.users/UserRegistered.avsc").is_file()


def test_a_user_is_published_and_served(folder):
    (start,), (publish, tail) = commands("## 4."), commands("In a second terminal")
    run(commands("## 3.")[2], folder)
    with (folder / "run.log").open("w") as log:
        running = subprocess.Popen(start, cwd=folder, env=environment(), stderr=log)
    try:
        run(publish, folder)
        wait_until(lambda: len(run(tail, folder).splitlines()) >= 3 and "GreetingSent" in run(tail, folder), 60)
        running.kill()
        running.wait()
        run(publish, folder)  # while nobody is there
        with (folder / "run.log").open("a") as log:
            running = subprocess.Popen(start, cwd=folder, env=environment(), stderr=log)
        # What was killed before it knew that an event lies in the log has published it twice: the same event.
        wait_until(lambda: len(set(re.findall(r"ProfileCreated.*\n *event (\S+)", run(tail, folder)))) == 2, 60)
    finally:
        running.terminate()
        running.wait()
    (look,) = commands("Each\nservice keeps its own state")
    if shutil.which(look[0]):
        assert run(look, folder) == "u-1|ada-lovelace\n" * 2


async def test_its_test_passes():
    module = types.ModuleType("tutorial")
    sys.modules[module.__name__] = module
    try:
        exec("".join(PROGRAM) + TEST, module.__dict__)  # noqa: S102 - our own page
        await module.test_a_user_is_greeted_though_the_mail_service_dies()
    finally:
        del sys.modules[module.__name__]


def test_the_package_is_the_same_flow():
    module = types.ModuleType("tutorial")
    sys.modules[module.__name__] = module
    try:
        exec("".join(PROGRAM), module.__dict__)  # noqa: S102 - our own page
    finally:
        del sys.modules[module.__name__]
    for service in services:
        same = vars(module)[service.name.removeprefix("signup-")]
        assert same.tables == service.tables
        assert [handler.name for handler in same.handlers.values()] == list(service.handlers)
        assert [event.contract for event in same.event_classes] == [event.contract for event in service.event_classes]
