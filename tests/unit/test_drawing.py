"""What the pictures show of sagas; the plain graph's are in test_choreography.py."""

import re

import pytest

from choreo import Choreography, Event, Failure, Service
from choreo.drawing import mermaid, text


class Asked(Event, topic="asks", key="id"):
    id: str


class Done(Event, topic="asks", key="id"):
    id: str


class Undone(Event, topic="asks", key="id"):
    id: str


class Chunk(Event, topic="chunks", key="id"):
    id: str


class Refused(Failure, topic="asks", key="id"):
    id: str


class Approved(Event, topic="ends", key="id", ends="completed"):
    id: str


class Expired(Failure, topic="ends", key="id", ends="failed"):
    id: str


desk, lake = Service("desk"), Service("lake")


@desk.on(Asked)
async def work(asked: Asked) -> Done | Refused: ...


@desk.compensates(work, on=(Expired,))
async def undo(done: Done, failure: Expired) -> Undone: ...


@desk.join(Asked, Done, unless=(Refused,))
async def approve(asked: Asked, done: Done) -> Approved: ...


@desk.join(Asked, Done, Refused, need=2, by="id")
async def either(asked: Asked | None, done: Done | None, refused: Refused | None) -> None: ...


@desk.join(Asked, Chunk, count=lambda asked: 3)
async def gather(asked: Asked, chunks: list[Chunk]) -> None: ...


@desk.join(Chunk, count=4)
async def gather_four(chunks: list[Chunk]) -> None: ...


@desk.deadline(Asked, within="90m", unless=(Approved,))
async def expire(asked: Asked) -> Expired: ...


@desk.deadline(Asked, every="1d", times=3)
async def remind(asked: Asked) -> None: ...


@lake.batch(Done, max_size=500, max_age="2s")
async def load(done: list[Done]) -> None: ...


GRAPH = Choreography.of([desk, lake]).graph


@pytest.fixture(scope="module")
def lines():
    return mermaid(GRAPH).splitlines()


@pytest.mark.parametrize(
    "line",
    [
        '    h_desk_2e_work["work"]',
        '    h_desk_2e_undo["undo"]:::compensation',
        '    h_desk_2e_approve[["approve<br/>2 of 2"]]',
        '    h_desk_2e_either[["either<br/>2 of 3 by id"]]',
        '    h_desk_2e_gather[["gather<br/>n x Chunk"]]',
        '    h_desk_2e_gather__four[["gather_four<br/>4 x Chunk"]]',
        '    h_desk_2e_expire{{"expire<br/>after 90m"}}',
        '    h_desk_2e_remind{{"remind<br/>after 1d, every 1d, 3 times"}}',
        '    h_lake_2e_load[("load<br/>500 or 2s")]',
        '  e_Asked(["Asked"]):::entry',
        '  e_Refused(["Refused"]):::failure',
        '  e_Approved(["✓ Approved"]):::completed',
        '  e_Expired(["✗ Expired"]):::failed',
        "  h_desk_2e_undo -. undoes .-> h_desk_2e_work",
        '  e_Approved -.-x|"stops"| h_desk_2e_expire',
    ],
)
def test_mermaid_shows(lines, line):
    assert line in lines


def test_mermaid_dashes_the_edges_that_stop_and_no_others(lines):
    links = [line for line in lines if re.search(r" (-->|-\.-x|-\. undoes \.->)", line)]
    dashed = next(line for line in lines if "linkStyle" in line).split()[1].split(",")
    assert [number for number, link in enumerate(links) if "-.-x" in link] == [int(number) for number in dashed]


def test_mermaid_defines_each_style_it_uses(lines):
    used = {line.rpartition(":::")[2] for line in lines if ":::" in line}
    assert {line.split()[1] for line in lines if "classDef" in line} == used


@pytest.mark.parametrize(
    "line",
    [
        "  desk.undo, undoing desk.work -> Undone",
        "  desk.approve, with Done -> Approved",
        "  desk.either, with Done, Refused (2 of them), by id -> nothing",
        "  desk.gather, with Asked, gathering n x Chunk -> nothing",
        "  desk.gather_four, gathering 4 x Chunk -> nothing",
        "  desk.expire, after 90m -> Expired",
        "  desk.remind, after 1d, every 1d, 3 times -> nothing",
        "  lake.load, up to 500 at once or 2s after the first -> nothing",
        "  stops desk.approve",
        "Approved (topic ends, key id, ends the saga as completed)",
        "Expired (topic ends, key id, failure, ends the saga as failed)",
        "Undone (topic asks, key id, when compensating)",
    ],
)
def test_text_shows(line):
    assert line in text(GRAPH).splitlines()
