"""The approval on every log, in one process and in many, one of which is killed."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from services.approval import desk, services
from services.approval.demo import run, walk
from services.approval.sample import Story, findings, samples
from services.trial import staged
from tests.services.flow_processes import in_processes, settings_at


def test_the_sample_has_every_story() -> None:
    assert {sample.story for sample in samples(7, 40)} == set(Story)


async def test_purchases_end_as_they_must_on_every_log(log_url: str, tmp_path: Path) -> None:
    chosen = samples(7, 40)
    settings = settings_at(log_url, tmp_path)
    async with staged(services, settings) as stage:
        assert await walk(stage, chosen, duplicates=0.5) > 10
        verdict = await stage.settle(partial(findings, settings.store, chosen))
        assert verdict.findings == []
        assert stage.duplicates_dropped > 10
    assert findings(settings.store, chosen) == []


async def test_a_demo_tells_what_came_of_it(tmp_path: Path) -> None:
    result = await run(settings_at("memory://", tmp_path), count=20)
    assert result.findings == []
    assert sum(result.data["stories"].values()) == result.data["requested"] == 20


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_nothing_is_lost_or_doubled_when_the_desk_is_killed(log_url: str, tmp_path: Path) -> None:
    chosen = samples(3, 40)
    settings = settings_at(log_url, tmp_path)
    async with in_processes("services.approval", services, settings) as flow:
        killing = asyncio.ensure_future(flow.kill_again_and_again(desk.desk))
        await walk(flow, chosen, duplicates=0.3)
        await killing
        await flow.settle(partial(findings, settings.store, chosen))
