"""The ingestion on every log, in one process and in many, one of which is killed."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from choreo import Service
from services.ingest import books, load, services
from services.ingest.demo import run
from services.ingest.sample import Kind, findings, samples
from services.trial import publish, staged
from tests.services.flow_processes import in_processes, settings_at


def test_the_sample_has_every_kind(tmp_path: Path) -> None:
    assert {sample.kind for sample in samples(7, 40, tmp_path)} == set(Kind)


async def test_files_end_as_they_must_on_every_log(log_url: str, tmp_path: Path) -> None:
    chosen = samples(7, 40, tmp_path)
    settings = settings_at(log_url, tmp_path)
    async with staged(services, settings) as stage:
        for sample in chosen:
            await stage.publish([sample.arrived], duplicates=0.5, seed=sample.rows)
        verdict = await stage.settle(partial(findings, settings.store, chosen), patience=60)
        assert verdict.findings == []
        assert stage.duplicates_dropped > 10
    assert findings(settings.store, chosen) == []


async def test_a_demo_tells_what_came_of_it(tmp_path: Path) -> None:
    result = await run(settings_at("memory://", tmp_path), count=20)
    assert result.findings == []
    assert sum(result.data["kinds"].values()) == result.data["arrived"] == 20


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
@pytest.mark.parametrize("victim", [load.loading, books.books], ids=lambda service: service.name)
async def test_nothing_is_lost_or_doubled_when_a_service_is_killed(
    log_url: str, victim: Service, tmp_path: Path
) -> None:
    chosen = samples(3, 60, tmp_path, lines=2000)
    settings = settings_at(log_url, tmp_path)
    async with in_processes("services.ingest", services, settings) as flow:
        killing = asyncio.ensure_future(flow.kill_again_and_again(victim))
        for sample in chosen:
            await publish(flow.bus, [sample.arrived], duplicates=0.3, seed=sample.rows)
        await killing
        await flow.settle(partial(findings, settings.store, chosen))
