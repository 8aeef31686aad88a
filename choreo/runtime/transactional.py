"""Services without a store: what is read, what is emitted and how far the group has come, as one transaction of the log.

Implements the store port over the log. The group's committed position is the progress: its offset is the watermark, and
its metadata says which records above that are done too. There is no inbox: a copy that a producer makes of an event is handled
again, and what the log delivers again has not been committed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, NoReturn, cast
from uuid import uuid4

from choreo.errors import ConfigurationError, NotOwnerError
from choreo.log.port import Consumer, Log, Position, Producer, TopicPartition
from choreo.store.port import Database, Effects, Progress, Store, Takeover

MAX_SPAN = 24_000
"""How many offsets above its watermark a partition's metadata can tell of: 4,000 characters of base64."""
_PREFIX = "done:"


class TransactionalStore(Store):
    """The progress of a transactional service. Of the port's promises it keeps those that need no database.

    Attributes:
        consumer: the group's member whose positions are committed; named before anything is taken over.
    """

    consumer: Consumer
    in_transaction = False
    db = cast("Database", None)  # nobody comes to use it: `begin` refuses

    def __init__(self, log: Log) -> None:
        self._log = log
        self._producer: Producer | None = None

    async def open(self, service: str, tables: str = "") -> None:  # noqa: ARG002 - a service that has any is refused when declared
        """See `Store.open`."""
        self._service = service

    async def close(self) -> None:
        """See `Store.close`."""
        if self._producer is not None:
            await self._producer.close()

    async def take_over(self, partitions: Sequence[TopicPartition]) -> Takeover:
        """See `Store.take_over`."""
        # The outcome of our own last transaction may be unknown, and no position is told before it has been settled:
        # which an empty one does, or if its producer was fenced (by the broker's time limit) that of another one.
        try:
            await self.commit(Effects(progress={}))
        except NotOwnerError:
            await self.commit(Effects(progress={}))
        known = await self._log.committed(self._service, partitions)
        progress = {at: _progress(known.get(at, Position(-1))) for at in partitions}
        return Takeover(progress, [], set())

    async def commit(self, effects: Effects) -> int | None:
        """See `Store.commit`."""
        positions = {at: Position(moved.watermark, pack(moved)) for at, moved in effects.progress.items()}
        if self._producer is None:  # an id of its own: who it fences is nobody but the broker's time limit
            self._producer = self._log.producer(transactional_id=f"{self._service}-{uuid4()}")
        try:
            await self._producer.append_atomically(effects.outbox, positions, self.consumer)
        except NotOwnerError:
            fenced, self._producer = self._producer, None
            await fenced.close()
            raise
        return None

    async def begin(self) -> NoReturn:
        """See `Store.begin`."""
        raise ConfigurationError(
            f"service {self._service!r} is transactional and has no ctx.db",
            remedy="leave out transactional=True, and it has a store",
        )

    async def seen(self, keys: Sequence[bytes]) -> set[bytes]:  # noqa: ARG002 - it knows none
        """See `Store.seen`."""
        return set()

    async def _nothing(self, *_: object) -> None:
        """There is no transaction before `commit`, nothing is parked, and nothing left in an outbox."""

    savepoint = release_savepoint = rollback_to_savepoint = rollback = _nothing
    give_back: Any = _nothing
    suspect: Any = _nothing
    behind: Any = _nothing
    release: Any = _nothing
    expire: Any = _nothing
    abandoned: Any = _nothing


def pack(progress: Progress) -> str:
    """What is done above the watermark, as the metadata of its position: one bit an offset, the watermark's first."""
    if not progress.done:
        return ""
    bits = bytearray((progress.done[-1] - progress.watermark) // 8 + 1)
    for offset in progress.done:
        place = offset - progress.watermark
        bits[place // 8] |= 1 << place % 8
    return _PREFIX + base64.b64encode(bits).decode()


def _progress(position: Position) -> Progress:
    """What `pack` wrote; metadata of other programs (who set the offset, meant it) says nothing."""
    offset, metadata = position
    try:
        text = metadata.removeprefix(_PREFIX) if metadata.startswith(_PREFIX) else ""
        bits = base64.b64decode(text, validate=True)
    except binascii.Error:
        bits = b""
    done = [offset + 8 * n + bit for n, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1]
    return Progress(offset, tuple(done), 0)
