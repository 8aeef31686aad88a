"""`choreo tracker`: what it says before there is anything to track, and what it refuses."""

from __future__ import annotations

import json

import pytest


def test_status_of_nothing(cli) -> None:
    ran = cli("tracker", "status")
    assert ran.code == 2
    assert (
        "there is no tracker's store .choreo/tracker.db (let the tracker make it: choreo tracker run MODULE)" in ran.err
    )


def test_rebuild_makes_it_where_there_is_none(cli) -> None:
    assert cli("topics", "create", "cli_shop").code == 0
    ran = cli("tracker", "rebuild", "cli_shop")
    assert (ran.code, ran.out) == (0, "0 sagas\n")
    status = cli("tracker", "status", "--json")
    assert json.loads(status.out)["records_behind"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--store", "mysql://x"], "the tracker's store mysql:// is none choreo knows"),
        (["--store", "sqlite://"], "the address of the tracker's store 'sqlite://' is not valid"),
        (["--searchable", "order_id"], "'order_id' is no field that can be searchable (write EventType.field"),
        (["--searchable", "Nothing.order_id"], "no event is called 'Nothing'"),
        (["--keep", "long"], "CHOREO_TRACKER_KEEP is 'long'"),
    ],
)
def test_what_cannot_be(cli, arguments: list[str], said: str) -> None:
    ran = cli("tracker", "run", "cli_shop", *arguments)
    assert ran.code == 2
    assert said in ran.err


def test_a_file_of_somebody_elses_is_left_alone(cli) -> None:
    assert cli("topics", "create", "cli_shop").code == 0
    ran = cli("tracker", "rebuild", "cli_shop", "--store", "sqlite:///.choreo/log.db")
    assert (ran.code, ran.err) == (
        2, "choreo: .choreo/log.db is no tracker's store (give the tracker a file of its own: CHOREO_TRACKER_STORE)\n"
    )  # fmt: skip
    assert "orders" in cli("topics", "list").out, "the log is as it was"
