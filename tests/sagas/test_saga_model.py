"""Sagas of five services end completed or undone, whatever fails, in whatever order events arrive, whoever dies where.

The services (`choreography`) are real instances of the runtime, over a log in memory and stores in SQLite files. A plan (`plan`) says
what handlers answer, which events are held up from whom, what is written twice, which instances die at which point of
the unit of work, stand still, come and go, and how time passes. At its end all trouble stops, dead letters are redriven, every
event is written once more, and nothing may be left to do (`world`). Then the invariants must hold (`invariants`).

By default the same few plans are tried each time. CHOREO_SAGA_PLANS=5000 tries so many others, at random; about five a second.
A plan that fails is printed as Python: put it into an @example to keep it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from tests.sagas.link import POINTS
from tests.sagas.plan import Crash, Plan, Saga, Start, Wait, plans
from tests.sagas.sabotage import BUGS
from tests.sagas.trial import Judge, at_rest
from tests.sagas.world import BY_NAME

PLANS = int(os.environ.get("CHOREO_SAGA_PLANS", "0"))
UNCHECKED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
SHRINKING = 60.0
"""Seconds that may be spent on a smaller example."""


@pytest.mark.timeout(600 + PLANS * 5)
def test_every_saga_is_completed_or_undone(ground):
    judge = Judge(lambda plan: at_rest(ground, plan), SHRINKING)

    @settings(max_examples=PLANS or 80, derandomize=not PLANS, database=None, suppress_health_check=UNCHECKED)
    @given(plan=plans())
    @example(plan=Plan())
    @example(plan=Plan(sagas=(Saga(stamps=2), Saga(answers={"ship": "refuses"}), Saga(answers={"award": "nothing"}))))
    def ends_well(plan):
        judge(plan)

    ends_well()


TRIED = (
    Saga(stamps=2),
    Saga(answers={"reserve": "raises refusal", "refund": "stumbles"}),
    Saga(stamps=1, answers={"stamp": "nothing", "charge": "stumbles", "recall": "fails"}),
)
"""One that is completed, one that fails at once, one that fails at its deadline."""


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_all_services_may_die_at_every_point(ground, point, nth):
    crashes = tuple(Crash(name, point, nth) for name in BY_NAME)
    plan = Plan(sagas=TRIED, crashes=crashes, operations=(Wait(5), *map(Start, BY_NAME), Wait(61)))
    assert not at_rest(ground, plan)


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.timeout(600)
def test_a_planted_bug_is_found(ground, bug):
    plant, invariant = BUGS[bug]

    def planted(plan):
        with plant():
            return [finding for finding in at_rest(ground, plan) if finding.startswith(f"{invariant}:")]

    judge = Judge(planted, 0)

    @settings(
        max_examples=60, derandomize=True, database=None, suppress_health_check=UNCHECKED, phases=[Phase.generate],
        report_multiple_bugs=False,
    )  # fmt: skip
    @given(plan=plans())
    def ends_well(plan):
        judge(plan)

    with pytest.raises(AssertionError, match=f"^{invariant}: "):
        ends_well()
