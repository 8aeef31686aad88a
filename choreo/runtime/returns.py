"""What comes back through the retry topic: discarded or run, and then what waits behind it, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from choreo.durations import seconds
from choreo.runtime.clock import Clock
from choreo.runtime.decoding import Decoder
from choreo.runtime.invoke import Invoker
from choreo.runtime.parking import lane_of
from choreo.runtime.partitions import AbandonedError, Back, Job, identity
from choreo.runtime.unit import UnitOfWork

_log = structlog.get_logger("choreo.runtime")
_CHUNK = 200


class Returns:
    """Ends the records of the retry topic.

    A key's order is kept by whose turn it is: only the record at its head lets go what waits behind it, and a key is
    released when nothing waits and all that its records emitted is in the log.

    Args:
        published: waits until everything emitted so far is in the log.
    """

    def __init__(
        self,
        *,
        service: str,
        unit: UnitOfWork,
        decoder: Decoder,
        invoker: Invoker,
        clock: Clock,
        published: Callable[[], Awaitable[None]],
    ) -> None:
        self._service = service
        self._unit = unit
        self._decoder = decoder
        self._invoker = invoker
        self._clock = clock
        self._published = published

    def begin(self, job: Job, back: Back) -> float:
        """Seconds until a returned record is due; one that is to be discarded is then done."""
        said = back.said
        if said is None or not job.left:
            return 0.0
        if said.discard:
            for task in job.left:  # as if handled, so that copies of it are dropped too
                self._unit.add(job.partition, job.offset, (), task.inbox_key)
                _log.info("record discarded", **identity(job, task.handler))
            job.left = ()
        wait = (said.due_ms - self._clock.now_ms()) / 1000
        longest = max((seconds(task.handler.retry.max_delay) for task in job.left), default=0.0)
        return (
            wait if wait <= longest else 0.0
        )  # no handler waits that long: some clock was wrong when this was written

    async def drain(self, job: Job, back: Back, worker: asyncio.Task[Any]) -> float | None:
        """Run what waits behind a returned record, for each handler that is through with it.

        Returns None when nothing is left to do here, else the seconds until the next attempt at what is at its turn.
        """
        while back.ended:
            if job.record.key is not None:
                wait = await self._drain(job, back, back.ended[0], worker)
                if wait is not None:
                    return wait
            back.ended.popleft()
        return None

    async def _drain(self, job: Job, back: Back, handler: str, worker: asyncio.Task[Any]) -> float | None:
        lane = lane_of(handler, job.record.topic, job.record.key or b"")
        while True:
            while back.waiting:
                if job.partition.leaving.is_set():
                    raise AbandonedError
                number, follower = back.waiting[0]
                if follower is not None:
                    wait = await self._invoker.run(follower, follower.tasks[0], worker)
                    if wait is not None:
                        return wait
                back.waiting.popleft()
                if follower is not None:
                    follower.tasks[0].held = ()
                self._unit.unpark(job.partition, job.offset, number)
                if follower and follower.back and not follower.back.ended and follower.tasks[0].handler.ordered:
                    back.waiting.clear()  # it is the key's head now
                    return None
            if not await self._more(job, back, handler, lane):
                return None

    async def _more(self, job: Job, back: Back, handler: str, lane: bytes) -> bool:
        """Read on what waits; False if nothing does (any more) for this record to let go."""
        head = job.metadata.event_id
        await self._unit.flush()
        if job.partition.leaving.is_set():
            raise AbandonedError
        rows = await self._unit.store.behind(lane, _CHUNK, head)
        if rows is None:
            return False
        if not rows:
            await self._published()
            released = await self._unit.release(job.partition, lane, head)
            if released:
                _log.info(
                    "key released", service=self._service, handler=handler, topic=job.record.topic, key=job.record.key,
                    event_id=head, correlation_id=job.metadata.correlation_id,
                )  # fmt: skip
            return not released
        followers = [(number, await self._decoder.follower(job, record, handler)) for number, record in rows]
        seen = await self._unit.seen([task for _, follower in followers if follower for task in follower.tasks])
        for number, follower in followers:
            copy = follower is None or follower.tasks[0].inbox_key in seen
            back.waiting.append((number, None if copy else follower))
            seen |= {task.inbox_key for task in follower.tasks} if follower else set()
        return True
