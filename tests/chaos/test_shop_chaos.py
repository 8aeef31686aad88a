"""Short rounds of chaos in the shop. `make chaos FLOW=shop ORDERS=10000` makes long ones; CHOREO_CHAOS_SEED repeats one."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.shop import chaos, plan
from tests.chaos.shop_arena import SHOP_SETUPS
from tests.chaos.test_chaos import SEED, in_full
from tests.servers.downloads import ServerMissingError, in_ci

ORDERS, KILLS = 300, 6

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "name",
    [
        "embedded",
        pytest.param("kafka", marks=[pytest.mark.kafka, in_full]),
        pytest.param("kafka-postgres", marks=[pytest.mark.kafka, in_full]),
    ],
)
async def test_every_book_is_right_whoever_died(name: str) -> None:
    setup = SHOP_SETUPS[name]
    try:
        outcome = await chaos(setup, SEED, ORDERS, KILLS)
    except ServerMissingError as error:
        if in_ci():
            raise
        pytest.skip(f"a server is missing: {error}")
    print(f"seed {SEED}", outcome.text(), outcome.logs)  # noqa: T201 - pytest shows it when the test fails
    assert outcome.findings == []
    assert outcome.outcomes.total() == ORDERS
    assert outcome.faults == Counter(strike.kind for strike in plan(setup, SEED, KILLS))


@pytest.mark.parametrize("name", SHOP_SETUPS)
def test_a_seed_repeats_a_plan_and_every_server_is_struck(name: str) -> None:
    setup = SHOP_SETUPS[name]
    strikes = plan(setup, 7, 50)
    assert strikes == plan(setup, 7, 50)
    assert strikes != plan(setup, 8, 50)
    servers = {"embedded": {}, "kafka": {"broker": 6}, "kafka-postgres": {"broker": 6, "database": 6}}
    assert Counter(strike.kind for strike in strikes) == {"kill": 50} | servers[name]
    assert [strike.at for strike in strikes] == sorted(strike.at for strike in strikes)


def test_there_is_a_victim_for_every_strike() -> None:
    """Rounded picks were 1.0 once in two thousand: nobody is at that end."""
    strikes = [strike for seed in range(300) for strike in plan(SHOP_SETUPS["embedded"], seed, 50)]
    assert all(0 <= strike.pick < 1 for strike in strikes)
