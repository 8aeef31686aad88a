"""Services without a store: what is read, what is emitted and how far the group has come, as one transaction of the log.

Implements the store port over the log. The group's committed position is the progress: its offset is the watermark, and
its metadata says which records above that are done too. There is no inbox: a copy that a producer makes of an event is handled
again, and what the log delivers again has not been committed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NoReturn, cast
from uuid import uuid4

from choreo.errors import ConfigurationError, NotOwnerError
from choreo.log.port import Consumer, Log, Position, Producer, TopicPartition
from choreo.runtime.operations import Operations
from choreo.store.port import Database, Effects, Progress, Store, Takeover

MAX_REACH = 16_000
"""How many offsets past its watermark a partition may be read until it is closed. Its metadata has room for 1,000 bytes
more: for those of the last poll, however far apart they lie."""
_PREFIX = "done:"


class TransactionalStore(Store):
    """The progress of a transactional service. Of the port's promises it keeps those that need no database.

    Attributes:
        consumer: the group's member whose positions are committed; named before anything is taken over.
    """

    consumer: Consumer
    in_transaction = False
    db = cast("Database", None)  # nobody comes to use it: `begin` refuses

    def __init__(self, log: Log, operations: Operations) -> None:
        self._log = log
        self._operations = operations
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
        progress = {at: unpack(known.get(at, Position(-1))) for at in partitions}
        return Takeover(progress, [], set())

    async def commit(self, effects: Effects) -> int | None:
        """See `Store.commit`."""
        positions = {at: Position(moved.watermark, pack(moved)) for at, moved in effects.progress.items()}
        if self._producer is None:  # an id of its own: who it fences is nobody but the broker's time limit
            self._producer = self._log.producer(transactional_id=f"{self._service}-{uuid4()}")
        try:
            with self._operations.sending(effects.outbox), self._operations.committing(positions):
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
    notes: Any = _nothing
    expire_notes: Any = _nothing
    due: Any = _nothing
    next_due: Any = _nothing
    pending: Any = _nothing
    watermarks: Any = _nothing
    abandoned: Any = _nothing


def pack(progress: Progress) -> str:
    """What is done above the watermark, as the metadata of its position (base64, 4,096 characters at most).

    Two bytes say how many bytes of bits follow, one bit an offset and the watermark's first; then come, of four bytes
    each, the distances from the watermark of what lies further off.
    """
    distances = [offset - progress.watermark for offset in progress.done]
    near = [distance for distance in distances if distance < MAX_REACH]
    bits = bytearray(near[-1] // 8 + 1 if near else 0)
    for distance in near:
        bits[distance // 8] |= 1 << distance % 8
    far = b"".join(distance.to_bytes(4, "big") for distance in distances[len(near) :])
    return _PREFIX + base64.b64encode(len(bits).to_bytes(2, "big") + bits + far).decode() if distances else ""


def unpack(position: Position) -> Progress:
    """What `pack` wrote; metadata of other programs (who set the offset, meant it) says nothing."""
    watermark, metadata = position
    if not metadata.startswith(_PREFIX):
        return Progress(watermark, (), 0)
    packed = base64.b64decode(metadata.removeprefix(_PREFIX))
    end = 2 + int.from_bytes(packed[:2], "big")
    done = [watermark + 8 * n + bit for n, byte in enumerate(packed[2:end]) for bit in range(8) if byte >> bit & 1]
    done += [watermark + int.from_bytes(packed[n : n + 4], "big") for n in range(end, len(packed), 4)]
    return Progress(watermark, tuple(done), 0)
