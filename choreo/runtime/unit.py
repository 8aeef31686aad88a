"""The unit of work: what the handlers of a batch did, committed as one transaction of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from choreo.log.port import NewRecord, TopicPartition
from choreo.runtime.partitions import NO_OFFSET, AbandonedError, Partition, Task
from choreo.runtime.sagas.memory import Memory
from choreo.store.port import Behind, Effects, NewNote, Park, Store, Timer

T = TypeVar("T")
_PACE = 0x3FF
"""Milliseconds."""


@dataclass(slots=True)
class Pending:
    """What is done and not yet committed."""

    inbox: dict[bytes, None] = field(default_factory=dict)
    records: list[NewRecord] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    ticked: list[int] = field(default_factory=list)
    partitions: dict[TopicPartition, Partition] = field(default_factory=dict)
    parked: dict[bytes, Park] = field(default_factory=dict)
    behind: list[Behind] = field(default_factory=list)
    unparked: list[int] = field(default_factory=list)
    survived: list[TopicPartition] = field(default_factory=list)
    notes: dict[Memory, list[NewNote]] = field(default_factory=dict)
    """By whose they are, which is held: nobody may read it from the store before they are there."""
    forgotten: list[bytes] = field(default_factory=list)
    timers: dict[bytes, Timer | None] = field(default_factory=dict)
    jobs: int = 0
    spans: list[Any] = field(default_factory=list)
    emitting: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    """What one transaction made durable.

    Attributes:
        keys: the inbox keys of the records it finished, of dead letters too.
        watermarks: the offsets that the group may commit now.
        due_ms: when the earliest of the timers is due that it has set.
        spans: recorded spans of what it finished.
        emitting: those of them that emitted something.
    """

    keys: list[bytes]
    records: list[NewRecord]
    outbox_row: int | None
    watermarks: dict[TopicPartition, int]
    due_ms: int | None
    spans: list[Any]
    emitting: list[Any]


class UnitOfWork:
    """Collects effects and commits them.

    `lock` is held by whoever uses the store's connection: one handler from its first `ctx.db` until it ends, or
    the commit. Effects are added in the same step in which a handler's savepoint is released, so whoever
    holds the lock finds writes and effects in agreement.

    Args:
        whole: whether a record's effects count only when all its handlers have done it. Without an inbox nothing else
            knows which of them have.

    Attributes:
        parked: the parked keys whose records may come here. One that another instance has released may still be among
            them; `put_behind` finds out.
        flush: commits what is pending; `held` as for `commit`.
    """

    def __init__(self, store: Store, *, whole: bool = False) -> None:
        self.store = store
        self.parked: set[bytes] = set()
        self.flush: Callable[..., Awaitable[None]]
        self._whole = whole
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()
        self._pending = Pending()
        self._doomed = False

    def add(
        self, partition: Partition, offset: int, records: Sequence[NewRecord], inbox_key: bytes | None = None
    ) -> bool:
        """A handler took effect for the record at `offset`, or (without a key) a dead letter stands for it.

        The partition is named so that the commit is fenced by its epoch even if the record is not finished yet. False if it
        is given up, and the handler's writes are about to be undone: then nothing is to be named beside it either.
        """
        if partition.gone and self._doomed:
            return False
        if self._whole:
            if records:
                partition.staged.setdefault(offset, []).extend(records)
            return True
        pending = self._pending
        if inbox_key is not None:
            pending.inbox[inbox_key] = None
        pending.records.extend(records)
        pending.partitions[partition.at] = partition
        self.changed.set()
        return True

    def note(self, memory: Memory, kind: str, content: bytes, keep_ms: int, *, alone: bool = False) -> None:
        """Write a note; named beside the `add` of what it tells. One that stands alone takes the place of what is pending.

        Until when it matters is rounded up: notes that have this in common cost the store less.
        """
        notes = self._pending.notes
        if alone and memory in notes:
            memory.forget(notes.pop(memory)[0].note.number)
        notes.setdefault(memory, []).append(memory.add(kind, content, keep_ms | _PACE, alone=alone))

    def forget_notes(self, key: bytes) -> None:
        """Notes that are needed no more; named beside the `add` of what has come of them."""
        self._pending.forgotten.append(key)

    def set_timer(self, timer: Timer) -> None:
        """A timer to set; named beside the `add` of what sets it."""
        self._pending.timers[timer.timer_id] = timer

    def unset(self, timer_id: bytes) -> None:
        """A timer that is done with; named beside the `add` of what stops it."""
        self._pending.timers[timer_id] = None

    def finish(self, partition: Partition, offset: int, tasks: Sequence[Task] = ()) -> None:
        """A record is done, whatever came of it; so is what a timer let happen, which has the offset `NO_OFFSET`."""
        if not partition.gone:
            pending = self._pending
            if offset != NO_OFFSET:
                partition.tracker.finish(offset)
            if partition.staged:
                pending.records.extend(partition.staged.pop(offset, ()))
            pending.partitions[partition.at] = partition
            for task in tasks:
                pending.keys.append(task.inbox_key)
            pending.jobs += 1
            self.changed.set()

    def traced(self, span: Any, *, emits: bool) -> None:
        """A recorded span has ended; named beside the effect of what it is about."""
        if span is not None:
            self._pending.spans.append(span)
            if emits:
                self._pending.emitting.append(span)

    def forget_key(self, inbox_key: bytes) -> None:
        """A record is away: from the next commit on, a copy that comes is not under way here."""
        self._pending.keys.append(inbox_key)

    def park(self, park: Park) -> None:
        """A key's record is away; it is named beside the `add` of the record that stands for it."""
        self.parked.add(park.lane)
        self._pending.parked[park.lane] = park

    async def put_behind(self, partition: Partition, offset: int, behind: Behind, tasks: Sequence[Task]) -> bool:
        """Let a record wait behind its parked key; False if that has been released, so the record can be handled."""
        lane = behind.lane
        async with self.lock:
            is_parked = lane in self.parked and await self._is_parked(lane)
            if partition.gone:
                raise AbandonedError
            if not is_parked:
                return False
            self.add(partition, offset, ())
            self._pending.behind.append(behind)
            self._pending.keys.extend([task.inbox_key for task in tasks])
            return True

    async def forget_released(self) -> None:
        """Forget the parked keys that other instances have released: of most of them no record comes any more."""
        for lane in tuple(self.parked):
            async with self.lock:
                await self._is_parked(lane)
            await asyncio.sleep(0)

    async def _is_parked(self, lane: bytes) -> bool:
        """Whether a key that was parked still is; `lock` is held."""
        if lane not in self._pending.parked and await self.store.behind(lane, 0) is None:
            self.parked.discard(lane)
        return lane in self.parked

    def unpark(self, partition: Partition, offset: int, number: int) -> None:
        """A record waits no more; named beside the effect that it had."""
        if partition.gone:
            raise AbandonedError
        self.add(partition, offset, ())
        self._pending.unparked.append(number)

    async def release(self, partition: Partition, lane: bytes, head: str) -> bool:
        """Park a key no more, unless something waits behind it; see `Store.release`."""

        async def release() -> bool:
            if partition.gone:  # maybe because the commit failed of what the head did
                raise AbandonedError
            return await self.store.release(lane, head, partition.at, partition.epoch)

        released = await self.apart(release)
        if released:
            self.parked.discard(lane)
        return released

    def come_on(self, partition: Partition) -> None:
        """A partition's watermark has moved though no record was handled."""
        self._pending.partitions[partition.at] = partition
        self.changed.set()

    def survive(self, partition: Partition) -> None:
        """None of the records before us can have killed earlier owners of this partition; nor a timer, if it is not haunted."""
        if not partition.gone and not partition.haunted and partition.deadly_until < 0:
            self._pending.partitions[partition.at] = partition
            self._pending.survived.append(partition.at)
            self.changed.set()

    async def apart(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do what is a transaction of its own, between two of ours."""
        async with self.lock:  # kept in between: handlers that queue for it would open the next one every time
            await self.flush(held=True)
            await self.clear()
            return await work()

    def is_pending(self, inbox_key: bytes) -> bool:
        """Whether the running transaction has this effect already."""
        return inbox_key in self._pending.inbox

    async def seen(self, tasks: Sequence[Task]) -> set[bytes]:
        """Which of these inbox keys are done, committed or pending."""
        keys = [task.inbox_key for task in tasks]
        async with self.lock:
            return await self.store.seen(keys) | {key for key in keys if key in self._pending.inbox}

    def tick(self, rows: Sequence[int]) -> None:
        """These outbox rows are in the log; the next commit removes them."""
        self._pending.ticked.extend(rows)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        pending = self._pending
        return not (pending.partitions or pending.records or pending.ticked or self.store.in_transaction)

    @property
    def is_due(self) -> bool:
        """Whether a commit has something to do and could begin at once."""
        return self.changed.is_set() and not self.lock.locked()

    @property
    def jobs(self) -> int:
        """How many finished records wait for their commit."""
        return self._pending.jobs

    async def commit(self, on_failure: Callable[[BaseException], None], *, held: bool = False) -> Committed | None:
        """Commit what is pending; None if there was nothing, or if it failed.

        Args:
            on_failure: told why nothing of it took effect, before anybody else can use the store, so that
                nothing builds on what was undone. The records must be read again. Whoever is cancelled here does not
                know what took effect either.
            held: whether the caller holds `lock`.
        """
        async with nullcontext() if held else self.lock:
            self.changed.clear()
            await self.clear()
            if self.is_empty:
                return None
            pending, self._pending = self._pending, Pending()
            progress = {at: partition.progress() for at, partition in pending.partitions.items()}
            effects = Effects(
                progress=progress,
                inbox=list(pending.inbox),
                outbox=pending.records,
                ticked=pending.ticked,
                parked=list(pending.parked.values()),
                behind=pending.behind,
                unparked=pending.unparked,
                survived=pending.survived,
                notes=list(chain.from_iterable(pending.notes.values())),
                forgotten=pending.forgotten,
                timers=[timer for timer in pending.timers.values() if timer is not None],
                unset=[timer_id for timer_id, timer in pending.timers.items() if timer is None],
            )
            try:
                row = await self.store.commit(effects)
            except BaseException as error:  # whatever it was, the transaction is gone
                self._pending.ticked.extend(pending.ticked)
                on_failure(error)
                if not isinstance(error, Exception):
                    raise
                return None
        watermarks = {at: moved.watermark for at, moved in progress.items()}
        due_ms = min((timer.due_ms for timer in effects.timers), default=None)
        return Committed(pending.keys, pending.records, row, watermarks, due_ms, pending.spans, pending.emitting)

    def forget(self) -> None:
        """Nothing that is pending counts, but for the ticks: those records are in the log whatever happens here.

        What the open transaction holds is undone before anybody can commit it.
        """
        self._pending = Pending(ticked=self._pending.ticked)
        self._doomed = True

    async def discard(self) -> None:
        """Undo what is pending."""
        async with self.lock:
            self.forget()
            await self.clear()

    async def clear(self) -> None:
        """Undo what is doomed, before anybody writes: what comes later would be undone with it, its effects kept."""
        if self._doomed:
            await self.store.rollback()
            self._doomed = False
