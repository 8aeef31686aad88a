"""The ingestion in a world: files of all kinds, trouble with disks, and services that are killed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import get_args

import pytest

from choreo import Service
from choreo.testing import World, running
from choreo.testing.link import Point
from services.ingest import load, services, transform, work
from services.ingest.events import (
    LARGE,
    ChunkCut,
    ChunkLoaded,
    ChunkTransformed,
    ChunkUnloaded,
    FileArrived,
    FileLoaded,
    FileMalformed,
    FileRejected,
    FileSplit,
)
from services.ingest.sample import write_file


def a_file(folder: Path, number: int, *, tenant: str = "ada", name: str = "f-1") -> tuple[FileArrived, int]:
    """A file of so many sales, and their cents."""
    path = folder / f"{name}.csv"
    _, cents = write_file(path, Random(number), number)
    return FileArrived(file_id=name, tenant=tenant, path=str(path), size=path.stat().st_size), cents


def spoil(file: FileArrived, *places: int) -> None:
    """Let lines of a file be no sales."""
    path = Path(file.path)
    lines = path.read_text().splitlines()
    for place in places:
        lines[place] = "nonsense"
    path.write_text("\n".join(lines))


def lose(file: FileArrived) -> None:
    """Let a file be away."""
    Path(file.path).unlink()


async def sales(world: World) -> list[tuple[str, int, int]]:
    found = "SELECT file_id, count(*), sum(cents) FROM sales GROUP BY file_id ORDER BY min(rowid)"
    return [tuple(row) for row in await world.fetch(load.loading, found)]


@pytest.mark.parametrize("chunk", [40, 1000, work.CHUNK])
@pytest.mark.parametrize("number", [0, 1, 200])
@pytest.mark.parametrize("ends", ["\n", ""])
def test_a_file_is_cut_at_its_lines_and_nothing_is_lost(tmp_path: Path, chunk: int, number: int, ends: str) -> None:
    _, cents = a_file(tmp_path, number)
    path = tmp_path / "f-1.csv"
    path.write_text(path.read_text().rstrip("\n") + ends)
    places = work.cut(str(path), chunk)
    rows = [row for start, end in places for row in work.clean(str(path), start, end)]
    assert (len(rows), sum(row.cents for row in rows)) == (number, cents)
    assert all(end - start <= chunk + 100 for start, end in places)
    assert [end for _, end in places[:-1]] == [start for start, _ in places[1:]]


@pytest.mark.parametrize("number", [0, 5, 5000])
async def test_a_file_is_loaded_whole(tmp_path: Path, number: int) -> None:
    arrived, cents = a_file(tmp_path, number)
    async with running(services, patience=60) as world:
        saga = await world.publish(arrived)
        await world.settle()
        (split,) = saga.emitted(FileSplit)
        assert len(saga.emitted(ChunkLoaded)) == split.chunks == -(-arrived.size // work.CHUNK) * bool(number)
        assert saga.emitted(FileLoaded) == [FileLoaded(file_id="f-1", tenant="ada", rows=number)]
        assert saga.outcome == "completed"
        assert await sales(world) == ([("f-1", number, cents)] if number else [])
        await world.advance("1d")
        assert saga.emitted(FileRejected) == []


async def test_a_large_file_goes_its_own_way(tmp_path: Path) -> None:
    arrived, cents = a_file(tmp_path, 30_000)
    assert arrived.size >= LARGE
    async with running(services, patience=60) as world:
        world.hold(FileArrived, to="ingest-intake")
        world.hold(ChunkCut, to="ingest-transform")
        saga = await world.publish(arrived)
        await world.settle()
        assert saga.outcome == "completed"
        assert {event.service for event in saga.events if event.type == "ChunkTransformed"} == {"ingest-large"}
        assert await sales(world) == [("f-1", 30_000, cents)]


@pytest.mark.parametrize("broken", ["header", "first row", "last row"])
async def test_a_malformed_file_is_a_failure_and_leaves_nothing(tmp_path: Path, broken: str) -> None:
    arrived, _ = a_file(tmp_path, 6000)
    spoil(arrived, {"header": 0, "first row": 1, "last row": -1}[broken])
    async with running(services, patience=60) as world:
        saga = await world.publish(arrived)
        await world.settle()
        assert len(saga.emitted(FileMalformed)) == len(saga.emitted(FileRejected)) == 1
        assert saga.outcome == "failed"
        assert await sales(world) == []
        loaded, unloaded = saga.emitted(ChunkLoaded), saga.emitted(ChunkUnloaded)
        assert {chunk.number for chunk in loaded} == {chunk.number for chunk in unloaded}
        assert len(loaded) == len(unloaded)
        if broken == "last row":
            assert loaded, "what was loaded before was taken out again"
        assert world.dead_letters == [], "and nothing was tried twice"


async def test_two_malformed_chunks_reject_a_file_once(tmp_path: Path) -> None:
    arrived, _ = a_file(tmp_path, 6000)
    spoil(arrived, 1, -1)
    async with running(services, patience=60) as world:
        saga = await world.publish(arrived)
        await world.settle()
        assert len(saga.emitted(FileMalformed)) == 2
        assert len(saga.emitted(FileRejected)) == 1
        assert await sales(world) == []


async def test_a_chunk_that_comes_after_the_rejection_is_not_loaded(tmp_path: Path) -> None:
    arrived, _ = a_file(tmp_path, 6000)
    spoil(arrived, -1)
    async with running(services, patience=60) as world:
        world.hold(ChunkTransformed, to=load.loading)
        saga = await world.publish(arrived)
        await world.settle()
        assert saga.outcome == "failed"
        await world.release(ChunkTransformed, to=load.loading)
        await world.settle()
        assert saga.emitted(ChunkLoaded) == []
        assert await sales(world) == []


async def test_a_disk_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    arrived, cents = a_file(tmp_path, 100)
    async with running(services, patience=60) as world:
        world.fail(transform.transform, TimeoutError, times=3)
        saga = await world.publish(arrived)
        await world.advance("1m")
        assert saga.outcome == "completed"
        assert await sales(world) == [("f-1", 100, cents)]


async def test_a_file_that_is_not_there_is_given_up_after_six_hours(tmp_path: Path) -> None:
    arrived, _ = a_file(tmp_path, 100)
    lose(arrived)
    async with running(services, dead_letters="keep", patience=60) as world:
        saga = await world.publish(arrived)
        await world.advance("5h")
        assert (saga.outcome, len(saga.dead_letters)) == (None, 1)
        await world.advance("2h")
        assert saga.outcome == "failed"


async def test_a_tenants_files_are_loaded_in_their_order_though_one_is_tried_again(tmp_path: Path) -> None:
    files = [a_file(tmp_path, 2500, name=f"f-{number}")[0] for number in range(4)]
    other, _ = a_file(tmp_path, 10, tenant="alan", name="other")
    async with running(services, patience=60) as world:
        world.fail(transform.transform, TimeoutError)
        for file in files:
            await world.publish(file)
        await world.settle()
        assert await sales(world) == []
        await world.publish(other)
        await world.settle()
        assert [name for name, *_ in await sales(world)] == ["other"], "another tenant does not wait"
        await world.advance("1m")
        assert [name for name, *_ in await sales(world)] == ["other", "f-0", "f-1", "f-2", "f-3"]


@pytest.mark.parametrize("point", get_args(Point))
@pytest.mark.parametrize("service", services, ids=lambda service: service.name)
async def test_a_service_that_is_killed_loses_and_doubles_nothing(
    tmp_path: Path, point: Point, service: Service
) -> None:
    good, cents = a_file(tmp_path, 4000, name="good")
    large, more = a_file(tmp_path, 25_000, tenant="heavy", name="large")
    bad, _ = a_file(tmp_path, 4000, name="bad")
    spoil(bad, -1)
    async with running(services, patience=60) as world:
        for event in (FileArrived, ChunkCut, ChunkLoaded):
            world.duplicate(event, times=3)
        world.crash_at(service, point, times=3)
        sagas = [await world.publish(file) for file in (good, bad, large)]
        await world.settle()
        assert [saga.outcome for saga in sagas] == ["completed", "failed", "completed"]
        assert sorted(await sales(world)) == [("good", 4000, cents), ("large", 25_000, more)]
