"""What a handler gets beside a batch of events."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from choreo.events import Metadata
from choreo.runtime.batches.job import Part
from choreo.runtime.context import HandlerDatabase, SyncDatabase
from choreo.runtime.session import Session
from choreo.wire.ids import derive_event_id


class _AboutBatch:
    """What both kinds of context tell about the batch."""

    __slots__ = ("_database", "_log", "_part", "_session", "attempt", "state")

    def __init__(self, part: Part, attempt: int, state: Any, session: Session) -> None:
        self._part = part
        self._session = session
        self._database: Any = None
        self._log: Any = None
        self.attempt = attempt
        self.state = state

    @property
    def metadata(self) -> tuple[Metadata, ...]:
        """The metadata of the events, in their order: ids, sagas, times."""
        return tuple(member.metadata for member in self._part.members)

    @property
    def idempotency_key(self) -> str:
        """The same whenever the handler is called with just these events.

        After a crash, or when some of them fail, they come in other batches.
        """
        return batch_id(self._part, -1)

    @property
    def log(self) -> Any:
        """A structlog logger bound to service, handler, and which records these are."""
        if self._log is None:
            self._log = structlog.get_logger("choreo.handler").bind(**identity(self._part))
        return self._log


class BatchContext(_AboutBatch):
    """What an `async def` handler gets beside a list of events.

    Attributes:
        attempt: which call this is for these events, from 1; counted anew after a restart.
        state: what the service's `lifespan` yielded; None without one.
    """

    __slots__ = ()

    @property
    def db(self) -> HandlerDatabase:
        """The service's store, in the same transaction as the inbox keys of all these events and the outbox."""
        if self._database is None:
            self._database = HandlerDatabase(self._session)
        database: HandlerDatabase = self._database
        return database


class SyncBatchContext(_AboutBatch):
    """What a `def` handler gets beside a list of events; as `BatchContext`, with a `db` that blocks."""

    __slots__ = ("_loop",)

    def __init__(self, part: Part, attempt: int, state: Any, session: Session) -> None:
        super().__init__(part, attempt, state, session)
        self._loop = asyncio.get_running_loop()

    @property
    def db(self) -> SyncDatabase:
        """See `BatchContext.db`."""
        if self._database is None:
            self._database = SyncDatabase(HandlerDatabase(self._session), self._loop)
        database: SyncDatabase = self._database
        return database


def batch_id(part: Part, ordinal: int) -> str:
    """The id of the `ordinal`th event that is emitted for these records, from 0."""
    handler = part.handler
    name = f"{handler.name}\0{part.composition}"
    return derive_event_id(part.metadata.event_id, handler.service, name, ordinal, time_ms=part.record.timestamp)


def identity(part: Part) -> dict[str, Any]:
    """What every log line about a batch carries: its size, its first and its last record."""
    first, last = part.members[0].record, part.members[-1].record
    return {
        "service": part.handler.service,
        "handler": part.handler.name,
        "events": len(part.members),
        "first": f"{first.topic}/{first.partition}@{first.offset}",
        "last": f"{last.topic}/{last.partition}@{last.offset}",
    }
