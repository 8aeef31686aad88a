"""Short rounds of chaos on all four set-ups, and proof that the checker sees what is broken.

`make chaos MINUTES=5` makes long ones. A failure prints its seed and its schedule; CHOREO_CHAOS_SEED repeats them.
"""

from __future__ import annotations

import os
from random import SystemRandom

import pytest

from tests.chaos.arena import SETUPS
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import chaos, scenario
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.schedule import schedule
from tests.servers.downloads import ServerMissingError, in_ci

SEED = int(os.environ.get("CHOREO_CHAOS_SEED", SystemRandom().randrange(1_000_000)))
SHORT = 25.0
SAGAS_PER_SECOND = 30
SLOW = {
    "embedded": {"zombie", "storm"},
    "kafka": {"frozen-broker", "outage"},
    "postgres": {"postgres", "storm"},
    "transactional": {"broker", "zombie"},
    "embedded-transactional": {"zombie", "storm"},
}
"""A short round has time for two slow kinds: each comes somewhere."""
QUICK = {kind for kind, fault in FAULTS.items() if not fault.slow}

in_full = pytest.mark.skipif(
    not (in_ci() or "CHOREO_CHAOS_SEED" in os.environ),
    reason="with CI=true or CHOREO_CHAOS_SEED; here the embedded log alone",
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "name",
    [
        "embedded",
        "embedded-transactional",
        *(pytest.param(name, marks=[pytest.mark.kafka, in_full]) for name in SLOW if SETUPS[name].log != "sqlite"),
    ],
)
async def test_nothing_is_lost_or_doubled_and_order_is_kept(name: str) -> None:
    try:
        outcome = await chaos(SETUPS[name], SEED, SHORT, int(SHORT * SAGAS_PER_SECOND), only=QUICK | SLOW[name])
    except ServerMissingError as error:
        if in_ci():
            raise
        pytest.skip(f"a server is missing: {error}")
    print(outcome.text(), outcome.logs)  # noqa: T201 - pytest shows it when the test fails
    assert outcome.verdict.findings == []
    assert outcome.faults.keys() >= SLOW[name]
    assert outcome.verdict.checked["reactions"] > outcome.verdict.checked["roots"] >= SHORT * SAGAS_PER_SECOND


@pytest.mark.parametrize("name", SABOTAGES)
async def test_a_broken_build_is_found_out(name: str) -> None:
    outcome = await scenario(name, broken=True)
    assert outcome.verdict.kinds() & SABOTAGES[name].shows, outcome.text()


@in_full
@pytest.mark.parametrize("name", SABOTAGES)
async def test_the_same_scenario_finds_nothing_wrong_with_the_sound_build(name: str) -> None:
    outcome = await scenario(name, broken=False)
    assert outcome.verdict.findings == [], outcome.text() + outcome.logs


@pytest.mark.parametrize("name", SETUPS)
def test_a_seed_repeats_a_schedule_and_a_long_one_has_every_kind_and_a_hundred_faults(name: str) -> None:
    plan = schedule(SETUPS[name], 7, 300)
    assert plan == schedule(SETUPS[name], 7, 300)
    assert plan != schedule(SETUPS[name], 8, 300)
    kinds = {strike.kind for strike in (*plan.quick, *plan.slow)}
    assert kinds == {kind for kind, fault in FAULTS.items() if fault.applies(SETUPS[name])}
    assert len(plan.quick) + len(plan.slow) >= 100
