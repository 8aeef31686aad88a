"""The embedded logs' producers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from choreo.errors import ConfigurationError, LogError, LogUnavailableError
from choreo.log.embedded.consumer import EmbeddedConsumer
from choreo.log.port import Consumer, NewRecord, Position, TopicPartition
from choreo.log.tables import Commit, Tables

if TYPE_CHECKING:
    from choreo.log.embedded.log import EmbeddedLog


class EmbeddedProducer:
    """Implements `Producer`."""

    def __init__(self, log: EmbeddedLog, transactional_id: str | None = None) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._fence: tuple[str, int] | None = None
        self._registering = asyncio.Lock()
        self._closed = False

    async def append(self, records: Sequence[NewRecord]) -> None:
        await self._write(records, None)

    async def append_atomically(
        self,
        records: Sequence[NewRecord],
        positions: Mapping[TopicPartition, Position] | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        if self._transactional_id is None:
            raise ConfigurationError("this producer cannot append atomically", remedy="open it with a transactional_id")
        if not positions:
            await self._write(records, None)
        elif isinstance(consumer, EmbeddedConsumer) and consumer.log is self._log:
            await self._write(records, consumer.claim(positions, taken=True))
        else:
            raise LogError("positions are committed for a consumer's group", remedy="name a consumer of the same log")

    async def close(self) -> None:
        self._closed = True
        # The log works in order: when this has had its turn, so has everything begun before.
        async with self._registering:
            with contextlib.suppress(LogError):
                await self._log.write(lambda _: None)

    async def _write(self, records: Sequence[NewRecord], commit: Commit | None) -> None:
        if self._closed:
            raise LogError("this producer is closed", remedy="append before closing, or open another one")
        await self._log.write(Tables.write, records, commit, await self._fenced())
        if records:
            self._log.wake({record.topic for record in records})

    async def _fenced(self) -> tuple[str, int] | None:
        async with self._registering:
            if self._transactional_id is not None and self._fence is None:
                epoch = await self._log.write(Tables.register, self._transactional_id)
                self._fence = (self._transactional_id, epoch)
            return self._fence


class GaplessProducer(EmbeddedProducer):
    """A producer that the first failure breaks; appends that overlap are done one after the other."""

    def __init__(self, log: EmbeddedLog) -> None:
        super().__init__(log)
        self._turn = asyncio.Lock()
        self._cause: LogError | None = None

    async def append(self, records: Sequence[NewRecord]) -> None:
        async with self._turn:
            if self._cause:
                why = str(self._cause)
                raise LogUnavailableError("this producer is broken", why=why, remedy="repeat with a new one")
            try:
                await super().append(records)
            except LogError as error:
                self._cause = error
                raise
