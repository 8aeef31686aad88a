"""The onboarding on every log, in one process and in many, one of which is killed."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from services.onboarding import services
from services.onboarding.demo import run, walk
from services.onboarding.sample import Fate, findings, samples
from services.trial import staged
from tests.services.flows import in_processes, kill_in_the_middle, settings_for, tails


def test_the_sample_has_every_fate() -> None:
    assert {sample.fate for sample in samples(7, 30)} == set(Fate)


async def test_accounts_end_as_they_must_on_every_log(log_url: str, tmp_path: Path) -> None:
    chosen = samples(7, 30)
    settings = settings_for(log_url, tmp_path)
    async with staged(services, settings) as stage:
        assert await walk(stage, chosen, duplicates=0.5) > 10
        verdict = await stage.settle(partial(findings, settings.store, chosen))
        assert verdict.findings == []
        assert stage.duplicates_dropped > 10
    assert findings(settings.store, chosen) == []


async def test_a_demo_tells_what_came_of_it(tmp_path: Path) -> None:
    result = await run(settings_for("memory://", tmp_path), count=20)
    assert result.findings == []
    assert sum(result.data["outcomes"].values()) == result.data["requested"] == 20


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
@pytest.mark.parametrize("victim", ["onboarding-databases", "onboarding-accounts"])
async def test_nothing_is_lost_or_doubled_when_a_service_is_killed(log_url: str, victim: str, tmp_path: Path) -> None:
    chosen = samples(3, 40)
    settings = settings_for(log_url, tmp_path)
    async with in_processes("onboarding", services, settings) as (stage, running):
        killing = asyncio.ensure_future(kill_in_the_middle(running[victim]))
        await walk(stage, chosen, duplicates=0.3)
        await killing
        verdict = await stage.settle(partial(findings, settings.store, chosen), patience=60)
        assert verdict.findings == [], tails(running)
