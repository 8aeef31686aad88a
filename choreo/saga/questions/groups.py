"""How the groups are that owe something: who is there, and how far behind."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from choreo.choreography import retry_topic
from choreo.errors import LogError
from choreo.graph import Graph
from choreo.log.port import Log, TopicPartition
from choreo.log.reader import partitions_of
from choreo.saga.store.port import TrackerStore
from choreo.saga.why import Group

_LATEST = 2**53
"""A moment after all others (ms): of a history the last entry alone is wanted."""


async def health(log: Log, store: TrackerStore, graph: Graph, services: Iterable[str]) -> dict[str, Group]:
    """The groups of these services, as they are now. What the log or the tracker does not say is None."""
    partitions = await store.progress()
    return {service: await _health(log, store, graph, service, partitions) for service in services}


async def _health(
    log: Log, store: TrackerStore, graph: Graph, service: str, partitions: Iterable[TopicPartition]
) -> Group:
    members = lag = None
    with suppress(LogError):
        members = await log.members(service)
    with suppress(LogError):
        lag = await _lag(log, graph, service)
    return Group(members=members, lag=lag, progress_ms=await _moved_ms(store, service, partitions))


async def _moved_ms(store: TrackerStore, group: str, partitions: Iterable[TopicPartition]) -> int | None:
    """When the group was last seen to have committed something new; None if that was only seen once."""
    histories = [await store.commits(group, at, _LATEST) for at in partitions]
    return max((history[-1].at_ms for history in histories if history), default=None)


async def _lag(log: Log, graph: Graph, service: str) -> int:
    handlers = {handler.id for handler in graph.handlers if handler.service == service}
    topics = {
        topic for edge in graph.edges if edge.handler in handlers and edge.kind != "emits" for topic in edge.topics
    }
    there = topics | {retry_topic(service)}
    partitions = await partitions_of(log, sorted(there & set(await log.topics())))
    begins, ends = await log.beginning_offsets(partitions), await log.end_offsets(partitions)
    committed = await log.committed(service, partitions)
    done = {at: committed[at].offset if at in committed else begins[at] for at in partitions}
    return sum(max(0, ends[at] - done[at]) for at in partitions)
