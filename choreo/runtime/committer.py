"""Committing: when a transaction is closed, and what follows it (publishing, the group's offsets)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import structlog

from choreo.errors import LogError, NotOwnerError
from choreo.log.port import Consumer, TopicPartition
from choreo.runtime.clock import Clock
from choreo.runtime.operations import Operations
from choreo.runtime.publisher import Publisher
from choreo.runtime.unit import Committed, UnitOfWork

_log = structlog.get_logger("choreo.runtime")
_OFFSET_INTERVAL = 0.2
"""Seconds between commits of the group's offsets: they are a cache of the store's progress, so nothing waits for them."""
_MOST_SPANS = 128
"""As many are remembered for the span of a commit."""
_OFFSET_TROUBLE = 1.0
"""Seconds until offsets that could not be committed are tried again."""


class Committer:
    """Commits whatever is done as soon as the store is free; while it commits, the next batch gathers.

    Args:
        owned: the partitions this instance owns.
        offsets_follow: whether the group's offsets are committed after the transaction; else they are in it.
        on_committed: told what became durable.
        operations: told of each commit of offsets.
        on_failure: told at once when a commit failed: everything under way must be given up.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        publisher: Publisher,
        clock: Clock,
        owned: Container[TopicPartition],
        *,
        operations: Operations,
        offsets_follow: bool,
        on_committed: Callable[[Committed], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._unit = unit
        self._publisher = publisher
        self._clock = clock
        self._owned = owned
        self._operations = operations
        self._offsets_follow = offsets_follow
        self._on_committed = on_committed
        self._on_failure = on_failure
        self._offsets: dict[TopicPartition, int] = {}
        self._handled: list[Any] = []  # recorded spans of what these offsets are about
        self._offsets_changed = asyncio.Event()
        self._taking_over = False
        self.consumer: Consumer

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._unit.changed.wait()
            if self._unit.is_empty:  # a worker that ran out of jobs has done it
                self._unit.changed.clear()
            else:
                await self.commit()

    async def commit(self, *, held: bool = False) -> None:
        """Commit what is pending now, if anything; see `UnitOfWork.commit`."""
        committed = await self._unit.commit(self._on_failure, held=held)
        if committed is None:
            return
        if committed.outbox_row is not None:
            self._publisher.put(committed.outbox_row, committed.records, committed.emitting)
        self._on_committed(committed)
        if committed.watermarks and self._offsets_follow:
            self._offsets.update(committed.watermarks)
            self._handled = [*self._handled, *committed.spans][:_MOST_SPANS]
            self._offsets_changed.set()

    def catch_up(self, offsets: Mapping[TopicPartition, int]) -> None:
        """The store knows of this progress; an earlier owner may have died before the group's offsets followed."""
        if self._offsets_follow:
            self._offsets.update(offsets)
        self._taking_over = True
        self._offsets_changed.set()

    async def flush(self, leaving: Iterable[TopicPartition]) -> None:
        """Commit what is pending, and the group's offsets of partitions that are about to go."""
        await self.commit()
        await self._commit_offsets({at: self._offsets.pop(at) for at in leaving if at in self._offsets})

    async def run_offsets(self) -> None:
        """Let the group's committed offsets follow the store's progress, until cancelled."""
        while True:
            await self._offsets_changed.wait()
            self._offsets_changed.clear()
            while self._taking_over:  # the consumer is just about to own these partitions
                self._taking_over = False
                await self._clock.pause(_OFFSET_INTERVAL)
            offsets = {at: offset for at, offset in self._offsets.items() if at in self._owned}
            self._offsets = {}
            if await self._commit_offsets(offsets):
                await self._clock.pause(_OFFSET_INTERVAL)
            else:  # whoever asks the group how far we are must not see us behind until a next record comes
                self._offsets = offsets | self._offsets
                self._offsets_changed.set()
                await self._clock.pause(_OFFSET_TROUBLE)

    async def _commit_offsets(self, offsets: dict[TopicPartition, int]) -> bool:
        """Whether the group knows them now."""
        if not offsets:
            return True
        handled, self._handled = self._handled, []
        try:
            with self._operations.committing(offsets, handled):
                await self.consumer.commit(offsets)
        except NotOwnerError as error:
            _log.info(
                "offsets not committed, some partition has gone", service=self._operations.client, error=str(error)
            )
        except LogError as error:
            _log.warning("offsets not committed yet", service=self._operations.client, error=str(error))
        else:
            return True
        return False
