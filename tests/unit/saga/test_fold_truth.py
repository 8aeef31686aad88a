"""The fold against the ground truth: sagas that somebody has played, so that all about them is known."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict

import pytest

from choreo.log.memory import MemoryLog
from choreo.log.port import Topic, TopicPartition
from choreo.saga.fold import fold
from tests.tracker.comparing import differences, sightings
from tests.tracker.laying import World
from tests.tracker.play import GRAPH
from tests.tracker.truth import truths

STATES = {
    *("running", "waiting", "late", "stuck", "compensating", "completed", "compensated", "partially-compensated"),
    *("failed", "diverged", "conflict", "truncated"),
}


@pytest.fixture(scope="module")
def world():
    return World(list(truths(seed=11, count=2000)), seed=11)


@pytest.fixture(scope="module")
def seen(world):
    return sightings(itertools.chain.from_iterable(world.lying.values()))


def test_every_saga_is_folded_to_what_is_true(world, seen):
    chance = random.Random(1)
    wrong = []
    for truth in world.truths:
        found = list(seen[truth.saga])
        chance.shuffle(found)
        wrong += [f"{truth}: {said}" for said in differences(truth, fold(found, GRAPH, world.around))]
    assert wrong == []


def test_all_states_occur(world):
    occurring = Counter(truth.state for truth in world.truths)
    assert {state for state, number in occurring.items() if number >= 3} == STATES


def test_any_order_and_any_duplicates_give_the_same_saga(world, seen):
    chance = random.Random(2)
    for truth in world.truths[:300]:
        found = seen[truth.saga]
        saga = fold(found, GRAPH, world.around)
        for _ in range(3):
            again = [*found, *chance.choices(found, k=3)]
            chance.shuffle(again)
            assert fold(again, GRAPH, world.around) == saga


def test_truths_differ_by_seed_and_are_the_same_for_one():
    one, same, other = (list(map(repr, truths(seed, 40))) for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_a_world_lays_some_records_twice_and_some_late(world):
    copies = Counter()
    late = 0
    for records in world.lying.values():
        for record in records:
            headers = dict(record.headers)
            copies[
                record.topic, headers.get("ce_id"), headers.get("choreo.dlq.id"), headers.get("choreo.retry.due")
            ] += 1
    assert sum(number > 1 for number in copies.values()) > 0.03 * len(copies)
    for found in (sightings(records) for records in world.lying.values()):
        late += sum(each.written_ms > each.produced_ms for group in found.values() for each in group)
    assert late > 0.03 * len(copies)


async def test_a_worlds_records_lie_in_a_log_where_it_says():
    world = World(list(truths(seed=51, count=60)), seed=51)
    async with MemoryLog() as log:
        await log.create_topics([Topic(name=name, partitions=number) for name, number in world.partitions.items()])
        producer = log.producer()
        await producer.append(world.records)
        await producer.close()
        consumer = log.consumer(list(world.partitions))
        found = defaultdict(list)
        while sum(map(len, found.values())) < len(world.records):
            for record in await consumer.poll():
                found[TopicPartition(*record[:2])].append(record)
        await consumer.close()
    assert found == world.lying
