"""The group's offsets follow the store's progress, also when the log does not take them at first."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from choreo.errors import LogUnavailableError, NotOwnerError
from choreo.log import TopicPartition
from choreo.runtime.committer import Committer
from choreo.runtime.operations import Operations
from choreo.runtime.stats import Stats
from tests.support import eventually

ONE, OTHER = TopicPartition("orders", 0), TopicPartition("orders", 1)


class Group:
    """A consumer whose group takes offsets or refuses them."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.tried: list[dict[TopicPartition, int]] = []
        self.committed: dict[TopicPartition, int] = {}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.tried.append(dict(offsets))
        if self.refusals:
            raise self.refusals.pop(0)
        self.committed.update(offsets)


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def following(group: Group, owned: set[TopicPartition]):
    clock = SimpleNamespace(pause=no_pause)
    committer = Committer(
        None,
        None,
        clock,
        owned,
        operations=Operations("s", Stats()),
        offsets_follow=True,
        on_committed=print,
        on_failure=print,
    )
    committer.consumer = group
    running = asyncio.create_task(committer.run_offsets())
    yield committer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("refusal", [LogUnavailableError("no answer"), NotOwnerError("gone")])
async def test_what_the_group_does_not_take_is_offered_again_though_nothing_moves(refusal):
    group = Group(refusal, refusal)
    async with following(group, {ONE, OTHER}) as committer:
        committer.catch_up({ONE: 7, OTHER: 3})
        await eventually(lambda: group.committed == {ONE: 7, OTHER: 3})
    assert len(group.tried) == 3


async def test_progress_made_meanwhile_wins():
    group = Group(LogUnavailableError("no answer"))
    async with following(group, {ONE}) as committer:
        committer.catch_up({ONE: 7})
        await eventually(lambda: group.tried)
        committer.catch_up({ONE: 9})
        await eventually(lambda: group.committed.get(ONE) == 9)


async def test_a_partition_that_has_gone_does_not_hold_up_the_others():
    group, owned = Group(*[NotOwnerError("gone")] * 1000), {ONE, OTHER}
    async with following(group, owned) as committer:
        committer.catch_up({ONE: 7, OTHER: 3})
        await eventually(lambda: group.tried)
        owned.discard(OTHER)
        group.refusals.clear()
        await eventually(lambda: group.committed)
    assert group.tried[-1] == group.committed == {ONE: 7}
