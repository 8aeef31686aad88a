"""`choreo demo`, as a person and as a program use it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from choreo.cli import main
from services.shop import payments
from services.shop.audit import open_stores, told
from services.shop.demo import sample
from services.shop.model import Outcome, books_of
from services.trial import settle

KEYS = {"started", "confirmed", "cancelled", "open", "events", "seconds", "events_per_second"}


@pytest.fixture(autouse=True)
def _own_folders_and_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Demos leave their folders here, and logging as they found it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("CHOREO_LOG", "CHOREO_STORE", "CHOREO_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def demo(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["demo", "--json", *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_program_gets_the_counts_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    result = demo(capsys)
    books = books_of(sample(7, 200))
    assert set(result) >= KEYS
    assert (result["started"], result["open"], result["findings"]) == (200, 0, [])
    assert result["confirmed"] == len(books.confirmed)
    cancelled = {cause: count for cause, count in result["cancelled"].items() if count}
    assert set(cancelled) == set.union(*map(set, books.outcomes.values())) - {Outcome.CONFIRMED}
    assert sum(cancelled.values()) == result["cancelled_total"] == 200 - result["confirmed"]
    with open_stores(result["stores"]) as stores:
        events = told(stores).total() + result["confirmed"]  # each of which earned points, or a dead letter
    assert {name: count for name, count in result["dead_letters"].items() if count} == {"loyalty": 1}
    assert result["events"] == events + result["duplicates_published"]
    assert result["events_per_second"] == pytest.approx(result["events"] / result["seconds"], rel=0.01)


def test_every_duplicate_is_dropped_by_each_of_its_five_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    result = demo(capsys, "--count", "30", "--duplicates", "1")
    assert (result["duplicates_published"], result["duplicates_dropped"]) == (30, 150)


def test_a_demo_without_duplicates_drops_none(capsys: pytest.CaptureFixture[str]) -> None:
    result = demo(capsys, "--count", "30", "--duplicates", "0", "--log", "memory://")
    assert (result["duplicates_published"], result["duplicates_dropped"]) == (0, 0)


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    once, again, other = (demo(capsys, "--count", "60", "--seed", seed) for seed in ("3", "3", "8"))
    assert once["confirmed"] == again["confirmed"]
    assert once["confirmed"] != other["confirmed"]


@pytest.mark.kafka
def test_a_kafka_may_have_seen_earlier_demos(capsys: pytest.CaptureFixture[str], kafka_bootstrap: str) -> None:
    for _ in range(2):
        result = demo(capsys, "--count", "40", "--log", f"kafka://{kafka_bootstrap}")
        assert (result["open"], result["findings"]) == (0, [])


def test_a_person_reads_80_columns_and_commands_that_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    assert main(["demo", "--count", "40"]) == 0
    text = capsys.readouterr().out
    summary, _, following = text.partition("Where to look next")
    assert max(map(len, summary.splitlines())) <= 80
    assert "\x1b" not in text, "plain where it is no terminal"
    assert "Every cent" in summary
    look, *sagas = following.split("\n$ ")
    commands = [line.strip() for line in look.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(commands) == 3
    assert [part.split()[2] for part in sagas] == ["show", "show", "show", "why"]
    assert [state for part in sagas[:3] for state in ("COMPLETED", "COMPENSATED", "FAILED") if state in part] == [
        "COMPLETED", "COMPENSATED", "FAILED",
    ]  # fmt: skip
    assert "choreo dlq redrive" in sagas[3]
    commands += [part.splitlines()[0] for part in sagas]
    for command in commands:
        if shutil.which(command.split()[0]):
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("\n") >= 5


def test_commands_work_too_where_choreo_is_not_on_the_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `make demo`."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [".venv/bin/choreo", "demo"])
    assert main(["demo", "shop", "--count", "5", "--log", "memory://"]) == 0
    assert "  .venv/bin/choreo graph services.shop\n" in capsys.readouterr().out


def test_wrong_books_are_said_and_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in payments: everybody's card is taken, whatever its limit."""
    monkeypatch.setattr(payments, "refusal", lambda *_: None)
    monkeypatch.setattr("services.trial.settle", partial(settle, patience=1))
    assert main(["demo", "--count", "40"]) == 1
    text = capsys.readouterr().out
    assert "The books are wrong" in text
    assert "expected payment declined" in text


def test_a_service_that_cannot_go_on_ends_the_demo_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("choreo.runtime.instance.Instance.failure", cannot_go_on)
    assert main(["demo", "--count", "5"]) == 1
    assert "choreo: RuntimeError: out of paper" in capsys.readouterr().err


async def cannot_go_on(_: object) -> None:
    raise RuntimeError("out of paper")


def test_outside_of_a_checkout_one_line_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "services", None)
    assert main(["demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "in a checkout" in line


def test_an_unknown_demo_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "shoe"]) == 2
    known = capsys.readouterr().err.partition("choose one of: ")[2]
    assert "shop" in known.strip().rstrip(")").split(", ")
