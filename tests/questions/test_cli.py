"""`choreo saga` as people and programs use it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from choreo.cli.saga_print import fitted
from choreo.saga.views.lines import line

CHOREO = str(Path(sys.executable).parent / "choreo")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def saga(shop_log: str, tmp_path: Path):
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CHOREO_LOG": shop_log, "CHOREO_MODULES": "services.shop",
        "CHOREO_REGISTRY": str(ROOT / "schemas"), "CHOREO_TRACKER_STORE": f"sqlite:///{tmp_path}/none.db",
    }  # fmt: skip

    def run(*arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        command = [CHOREO, "saga", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    run.environment = environment
    return run


def test_show(saga):
    done = saga("show", "o-7-00040")
    assert done.stdout.startswith("OrderPlaced o-7-00040  FAILED  loyalty.award has given up on OrderConfirmed")
    assert "✗ loyalty.award  dead letter  1 attempt" in done.stdout
    assert "x PointsEarned will not come" in done.stdout
    assert "\x1b" not in done.stdout
    (said,) = done.stderr.splitlines()
    assert said.startswith("choreo: there is no tracker's store sqlite:///")


@pytest.mark.parametrize("view", ["sequence", "timeline", "ledger"])
def test_other_views(saga, view):
    assert "payments" in saga("show", "o-7-00040", "--view", view, "--from-log").stdout


def test_why_says_what_to_do(saga):
    done = saga("why", "o-7-00040", "--from-log")
    assert done.stderr == ""
    assert "Next: see it, choreo dlq show" in done.stdout
    told = json.loads(saga("why", "o-7-00040", "--json").stdout)
    assert (told["state"], "\n".join(told["sentences"]) + "\n") == ("failed", done.stdout)


def test_lists_are_tab_separated_in_a_pipe_and_go_on(saga):
    first = saga("list", "state", "=", "completed", "-n", "5")
    rows = [row.split("\t") for row in first.stdout.splitlines()]
    assert {(len(row), row[1]) for row in rows} == {(7, "completed")}
    cursor = first.stderr.splitlines()[-1].removeprefix("there are more: --after ")
    second = saga("list", "state = completed", "-n", "5", "--after", cursor)
    assert not {row[0] for row in rows} & {row.split("\t")[0] for row in second.stdout.splitlines()}
    page = json.loads(saga("list", "has dead_letters", "--json").stdout)
    assert ([row["key"] for row in page["sagas"]], page["after"]) == (["o-7-00040"], None)


def test_a_saga_by_any_of_its_names(saga):
    shown = json.loads(saga("show", "o-7-00040", "--json").stdout)
    for name in (
        shown["id"],
        shown["id"][:-2],
        shown["events"][-1]["id"],
        shown["duties"][-1]["letter"] or "o-7-00040",
    ):
        assert json.loads(saga("show", name, "--json").stdout)["id"] == shown["id"]


def test_events_and_one_of_them_decoded(saga):
    assert len(saga("events", "o-7-00001").stdout.splitlines()) == 7
    text = saga("events", "o-7-00001", "PaymentCharged").stdout
    assert '"order_id": "o-7-00001"' in text
    assert "PaymentCharged version 1" in text
    assert "ce_correlationid" in text
    (record,) = json.loads(saga("events", "o-7-00001", "PaymentCharged", "--json").stdout)["records"]
    assert record["data"]["order_id"] == "o-7-00001"


def test_a_value_whose_schema_nobody_has_is_shown_as_it_is(saga, tmp_path):
    text = saga("events", "o-7-00001", "PaymentCharged", CHOREO_REGISTRY=str(tmp_path / "empty")).stdout
    assert "cannot be decoded: " in text
    assert "\n  00 " in text


def test_stats_diff_ledger_verify(saga):
    assert "40 sagas: " in saga("stats").stdout
    assert saga("stats", "OrderPlaced").stdout.splitlines()[2].split()[:2] == ["OrderPlaced", "40"]
    assert "<- they part here" in saga("diff", "o-7-00040", "o-7-00001").stdout
    assert "PaymentCharged" in saga("ledger", "o-7-00001").stdout
    assert saga("verify").stdout == "✓ 40 sagas keep all laws\n"
    assert saga("verify", "o-7-00001").stdout == "✓ 1 saga keeps all laws\n"
    assert json.loads(saga("verify", "o-7-00001", "--json").stdout) == {"checked": 1, "broken": []}


def test_export_writes_a_file(saga, tmp_path):
    page = tmp_path / "saga.html"
    saga("export", "o-7-00040", "--format", "html", "-o", str(page))
    assert page.read_text("utf-8").startswith("<!doctype html>")
    log = json.loads(saga("export", "--where", "state = compensated", "--format", "ocel").stdout)
    assert {one["name"] for one in log["objectTypes"]} == {"saga", "business key", "service"}


def test_as_it_was(saga):
    started = json.loads(saga("show", "o-7-00001", "--json").stdout)["started_ms"]
    from choreo.saga.views.lines import moment

    done = saga("show", "o-7-00001", "--as-of", moment(started))
    assert f"as of    {moment(started)}" in done.stdout
    assert "StockReserved  inventory" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "nobody"), 1, "no saga has the id, business key, event or dead letter 'nobody'"),
        (("list", "stat = x"), 2, "there is no field 'stat' (did you mean state?"),
        (("list", "--limit", "501"), 2, "less than or equal to 500"),
        (("show", "o-7-00001", "--as-of", "yesterday"), 2, "'yesterday' is no time (write -2h"),
        (("show", "o-7-00001", "--as-of", "2001-01-01"), 1, "had not begun then"),
        (("export",), 2, "no saga is named"),
        (("export", "o-7-00001", "--where", ""), 2, "sagas are named and --where is given"),
        (("verify", "o-7-00001", "--where", "state = failed"), 2, "a saga is named and --where is given"),
        (("stats", "Nope"), 1, "no saga begins with 'Nope'"),
        (("show", "o-7-00001", "--as-of", "2999-01-01"), 2, "is in the future"),
        (("export", "o-7-00001", "o-7-00002", "--format", "html"), 2, "html shows one saga"),
        (("events", "o-7-00001", "Nothing"), 1, "one of these types: OrderPlaced"),
        (("watch", "--from-log"), 2, "run a tracker"),
        (("watch",), 2, "run a tracker"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(saga, arguments, code, words):
    said = saga(*arguments, code=code).stderr.splitlines()
    assert words in said[-1]
    assert len(said) <= 2


def test_on_a_terminal_it_is_coloured_and_fits(saga):
    main, other = pty.openpty()
    environment = {**saga.environment, "TERM": "xterm", "COLUMNS": "60", "LINES": "40"}
    command = [CHOREO, "saga", "show", "o-7-00040", "--from-log"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=other, stderr=other) as process:
        os.close(other)
        read = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:
                break
            if not part:
                break
            read += part
        process.wait()
    os.close(main)
    text = read.decode()
    assert "\x1b[1;31mFAILED" in text
    import re

    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in text.replace("\r", "").splitlines()]
    assert max(map(len, rows)) <= 60


def test_nothing_in_a_record_steers_the_terminal():
    evil = line(("\x1b[2Jgone\x07\u202e", "bad"), " and \x9b31m", lead="├─ ", hang="│  ")
    for columns in (10, 200):
        for coloured in (True, False):
            text = "\n".join(fitted(evil, columns, coloured=coloured))
            for sign in ("\x1b[2J", "\x07", "\u202e", "\x9b"):
                assert sign not in text
    assert fitted(evil, 200, coloured=False) == ["├─ \\x1b[2Jgone\\x07\\x202e and \\x9b31m"]


def test_a_list_of_nothing_says_so(saga):
    found = saga("list", "state = stuck")
    assert (found.stdout, found.stderr.splitlines()[-1]) == ("", "no saga fits")
