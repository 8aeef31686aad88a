"""The tracker against the ground truth. `make chaos FLOW=tracker ORDERS=10000` makes long trials; CHOREO_CHAOS_SEED repeats one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.test_chaos import SEED, in_full
from tests.servers.downloads import ServerMissingError, in_ci
from tests.tracker.arena import SETUPS, trial

SAGAS, KILLS = 300, 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "setup",
    [
        "embedded",
        pytest.param("kafka", marks=[pytest.mark.kafka, in_full]),
        pytest.param("kafka-postgres", marks=[pytest.mark.kafka, in_full]),
    ],
)
async def test_what_the_tracker_says_is_true_however_often_it_was_killed(setup: str, tmp_path: Path) -> None:
    assert setup in SETUPS
    try:
        outcome = await trial(setup, tmp_path, seed=SEED, sagas=SAGAS, kills=KILLS)
    except ServerMissingError as error:
        if in_ci():
            raise
        pytest.skip(f"a server is missing: {error}")
    print(f"seed {SEED}", outcome.text())  # noqa: T201 - pytest shows it when the test fails
    assert outcome.findings == []
    assert outcome.states.total() == SAGAS
    assert outcome.kills >= KILLS
