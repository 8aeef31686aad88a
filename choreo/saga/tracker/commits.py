"""What groups have committed: that tells who has read what, without a word from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from choreo.errors import AccessError, LogError
from choreo.graph import Graph
from choreo.log.port import Log, TopicPartition

_log = structlog.get_logger("choreo.tracker")


def read_by(graph: Graph, partitions: Iterable[TopicPartition]) -> dict[str, set[TopicPartition]]:
    """The partitions that each group reads, of these."""
    topics: dict[str, set[str]] = {service: {f"retry.{service}"} for service in graph.services}
    for edge in graph.edges:
        if edge.kind != "emits":
            topics[edge.handler.partition(".")[0]].update(edge.topics)
    there = list(partitions)
    return {group: {at for at in there if at.topic in named} for group, named in topics.items()}


class Commits:
    """Asks for the committed offsets of groups. A group that may not be asked about is passed over, and that is said once."""

    def __init__(self, log: Log) -> None:
        self._source = log
        self._refused: set[str] = set()

    async def of(self, wanted: Mapping[str, Iterable[TopicPartition]]) -> dict[tuple[str, TopicPartition], int]:
        """What these groups have committed of these partitions; what is not known is left out."""
        asked = {group: sorted(partitions) for group, partitions in wanted.items()}
        answers = await asyncio.gather(*(self._of(group, some) for group, some in asked.items() if some))
        return {at: offset for answer in answers for at, offset in answer.items()}

    async def _of(self, group: str, partitions: list[TopicPartition]) -> dict[tuple[str, TopicPartition], int]:
        try:
            found = await self._source.committed(group, partitions)
        except LogError as error:
            if group not in self._refused:
                self._refused.add(group)
                level = _log.error if isinstance(error, AccessError) else _log.warning
                level("nobody says what a group has committed", group=group, error=str(error))
            return {}
        self._refused.discard(group)
        return {(group, at): position.offset for at, position in found.items()}
