"""What the services of a world have written, as a tracker sees it."""

from __future__ import annotations

from collections.abc import Sequence

from choreo import Service
from choreo.log.port import Record, TopicPartition
from choreo.saga.model import Surroundings
from choreo.saga.sighting import Sighting
from choreo.testing.world import World
from tests.tracker.comparing import sightings


async def seen(world: World, services: Sequence[Service]) -> tuple[dict[str, list[Sighting]], Surroundings]:
    """The sightings of each saga, and what is known beside them, at this moment of the world."""
    topics = await world.log.topics()
    partitions = [TopicPartition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
    first, ends = await world.log.beginning_offsets(partitions), await world.log.end_offsets(partitions)
    records: list[Record] = []
    consumer = world.log.consumer(list(topics))
    while len(records) < sum(ends[at] - first[at] for at in partitions):
        records += await consumer.poll()
    await consumer.close()
    committed = {
        (service.name, at): position.offset
        for service in services
        for at, position in (await world.log.committed(service.name, partitions)).items()
    }
    now_ms = world.clock.now_ms()
    return sightings(records), Surroundings(now_ms, committed, first, now_ms)
