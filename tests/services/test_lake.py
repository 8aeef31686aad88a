"""The lake: batches, late clicks, nightly tables, and a day rebuilt from the log, on every log and in many processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from choreo import Settings
from choreo.testing import World, running
from choreo.testing.link import Point
from services.books import rows
from services.lake import loader, reports, services
from services.lake.demo import run
from services.lake.events import Clicked, DayClosed, DeliveryBegun, DeliveryMissed, LateClicksLoaded, PagesDelivered
from services.lake.replay import canonical, replay
from services.lake.sample import PAGES, findings, publish, sample
from services.trial import staged
from tests.services.flow_processes import in_processes, settings_at
from tests.services.processes import CHECKOUT
from tests.support import keep_for_ever

TUESDAY = "2024-01-02"
TODAY = datetime.now(UTC).date()
ONE, OTHER = (TODAY - timedelta(days=days) for days in (30, 60))
"""The last days of tests that may share a broker, which keeps what each has written; demos have last week."""


def click(number: int, day: str = TUESDAY, *, visitor: str = "ada") -> Clicked:
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00") + timedelta(seconds=number)
    return Clicked(click_id=f"c-{number}", visitor=visitor, page="/news/1", at=at)


async def table(world: World) -> list[str]:
    return [row[0] for row in await world.fetch(loader.loader, "SELECT click_id FROM clicks ORDER BY rowid")]


async def batches(world: World) -> list[int]:
    return [row[0] for row in await world.fetch(loader.loader, "SELECT clicks FROM batches ORDER BY rowid")]


async def deliver(world: World, parts: int = 2, *, missing: int = 0) -> str:
    begun = await world.publish(DeliveryBegun(day=TUESDAY, parts=parts))
    for part in range(parts - missing):
        pages = PagesDelivered(day=TUESDAY, part=part, pages=PAGES[part::parts])
        await world.publish(pages, correlation_id=begun.correlation_id)
    await world.settle()
    return begun.correlation_id


# --- in a world -------------------------------------------------------------------------------------------------------


async def test_clicks_wait_for_each_other_and_are_written_together() -> None:
    async with running(services) as world:
        for number in range(30):
            await world.publish(click(number))
        await world.settle()
        assert await table(world) == []
        await world.advance("2s")
        assert await table(world) == [f"c-{number}" for number in range(30)]
        assert await batches(world) == [30]


async def test_a_full_batch_does_not_wait() -> None:
    async with running(services, patience=60) as world:
        for number in range(501):
            await world.publish(click(number))
        await world.settle()
        assert await batches(world) == [500]
        await world.advance("2s")
        assert await batches(world) == [500, 1]


async def test_the_nightly_table_is_loaded_when_its_last_part_has_come() -> None:
    async with running(services) as world:
        await world.publish(click(1))
        await world.advance("2s")
        saga = world.saga(await deliver(world, 3, missing=1))
        assert await world.fetch(loader.loader, "SELECT count(*) FROM pages") == [(0,)]
        await world.publish(PagesDelivered(day=TUESDAY, part=2, pages=PAGES[2::3]), correlation_id=saga.correlation_id)
        await world.settle()
        assert saga.emitted(DayClosed) == [DayClosed(day=TUESDAY, pages=len(PAGES), clicks=1)]
        await world.advance("1d")
        assert saga.outcome == "completed"
        assert await world.fetch(loader.loader, "SELECT count(*) FROM pages") == [(len(PAGES),)]


async def test_a_table_that_does_not_come_whole_is_missed() -> None:
    async with running(services) as world:
        saga = world.saga(await deliver(world, 3, missing=1))
        await world.advance("4h")
        assert saga.emitted(DeliveryMissed) == [DeliveryMissed(day=TUESDAY)]
        assert await world.fetch(reports.reports, "SELECT day FROM missing") == [(TUESDAY,)]
        await world.publish(PagesDelivered(day=TUESDAY, part=2, pages=PAGES[2::3]), correlation_id=saga.correlation_id)
        await world.settle()
        assert saga.outcome == "failed"
        assert await world.fetch(loader.loader, "SELECT count(*) FROM pages") == [(0,)]


async def test_late_clicks_are_loaded_and_correct_the_report() -> None:
    async with running(services) as world:
        for number in range(3):
            await world.publish(click(number))
        await world.advance("2s")
        await deliver(world)
        report = "SELECT clicks, late, revision FROM reports WHERE day = $1"
        assert await world.fetch(reports.reports, report, (TUESDAY,)) == [(3, 0, 1)]
        for number in (3, 4):
            await world.publish(click(number))
        await world.publish(click(5, "2024-01-03"))
        await world.advance("2s")
        assert world.emitted(LateClicksLoaded) == [LateClicksLoaded(day=TUESDAY, clicks=2)]
        assert await world.fetch(reports.reports, report, (TUESDAY,)) == [(5, 2, 2)]
        assert len(await table(world)) == 6


@pytest.mark.parametrize("point", [point for point in get_args(Point) if point != "after publish"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_loader_that_is_killed_writes_each_click_once(point: Point, times: int) -> None:
    async with running(services) as world:
        world.duplicate(Clicked, times=20)
        world.crash_at(loader.loader, point, times=times)
        for number in range(60):
            await world.publish(click(number, visitor=f"v-{number % 7}"))
        await world.advance("10s")
        await deliver(world)
        for number in range(60, 90):
            await world.publish(click(number, visitor=f"v-{number % 7}"))
            if number == 75:
                await world.crash(loader.loader)
        await world.advance("10s")
        assert sorted(await table(world)) == sorted(f"c-{number}" for number in range(90))
        assert await world.fetch(reports.reports, "SELECT clicks, late FROM reports") == [(90, 30)]


# --- replays ----------------------------------------------------------------------------------------------------------


async def is_the_same(settings: Settings, log: object, days: tuple[date, ...]) -> None:
    for day in days:
        made = await replay(settings, day, log)  # type: ignore[arg-type] # a log
        assert made.from_log.count(b"\n") > 50
        assert made.from_log == made.from_table, f"{day}: rebuilt byte for byte"


async def test_each_day_can_be_rebuilt_on_every_log(log_url: str, tmp_path: Path) -> None:
    given, settings = sample(7, 500, last=ONE), settings_at(log_url, tmp_path)
    if log_url.startswith("kafka://"):
        await keep_for_ever(services, log_url)
    async with staged(services, settings) as stage:
        assert await publish(settings, stage.log, given, duplicates=0.2) > 50
        assert (await stage.settle(partial(findings, settings.store, given))).findings == []
        await is_the_same(settings, stage.log, given.days)
        earlier = {row[0] for row in rows(settings.store, "lake-loader", "SELECT DISTINCT day FROM clicks")}
        assert earlier == {day.isoformat() for day in given.days}


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_the_same_table_comes_of_the_log_though_the_loader_is_killed(log_url: str, tmp_path: Path) -> None:
    given, settings = sample(3, 1500, last=OTHER), settings_at(log_url, tmp_path)
    if log_url.startswith("kafka://"):
        await keep_for_ever(services, log_url)
    async with in_processes("services.lake", services, settings) as flow:
        killing = asyncio.ensure_future(flow.kill_again_and_again(loader.loader))
        await publish(settings, flow.log, given, duplicates=0.1)
        await killing
        await flow.settle(partial(findings, settings.store, given))
        await is_the_same(settings, flow.log, given.days)


async def test_the_command_says_whether_they_are_equal(tmp_path: Path) -> None:
    given, settings = sample(7, 200, last=ONE), settings_at(f"sqlite:///{tmp_path}/log.db", tmp_path)
    async with staged(services, settings) as stage:
        await publish(settings, stage.log, given)
        assert (await stage.settle(partial(findings, settings.store, given))).findings == []
    day, out = given.days[1], tmp_path / "day.tsv"
    done = await asyncio.to_thread(command, settings, day, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "equal"
    found = f"SELECT day, at, click_id, visitor, page FROM clicks WHERE day = '{day}'"
    assert await asyncio.to_thread(out.read_bytes) == canonical(rows(settings.store, "lake-loader", found))
    await asyncio.to_thread(lose_a_click, settings, day)
    done = await asyncio.to_thread(command, settings, day, out)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "they differ")


def command(settings: Settings, day: date, out: Path) -> subprocess.CompletedProcess[str]:
    variables = {"CHOREO_LOG": settings.log, "CHOREO_STORE": settings.store, "CHOREO_REGISTRY": settings.registry}
    words = [sys.executable, "-m", "services.lake.replay", "--day", str(day), "--out", str(out)]
    environment = {**os.environ, **variables}
    return subprocess.run(words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def lose_a_click(settings: Settings, day: date) -> None:
    import sqlite3

    store = sqlite3.connect(settings.store_of("lake-loader", None).removeprefix("sqlite:///"))
    store.execute("DELETE FROM clicks WHERE rowid = (SELECT min(rowid) FROM clicks WHERE day = ?)", (str(day),))
    store.commit()
    store.close()


async def test_a_demo_tells_what_came_of_it(tmp_path: Path) -> None:
    result = await run(settings_at("memory://", tmp_path), count=300)
    assert result.findings == []
    assert result.data["is_same"]
    assert result.data["batches"] < 100
