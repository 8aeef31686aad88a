"""Another process at the same SQLite log: `python -m tests.unit.log.sqlite_child URL`.

Does what it reads on its standard input, one command a line, and answers each with one line (`append` with many).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence

from choreo.errors import LogError
from choreo.log import open_log
from choreo.log.port import Consumer, Log, NewRecord, TopicPartition


class Child:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._topic = ""
        self._lost = 0
        self._consumer: Consumer | None = None

    async def append(self, topic: str, count: str, key: str) -> str:
        """Append records 0 to `count`, each in a call of its own, and say of each when it is acknowledged."""
        producer = self._log.producer()
        for n in range(int(count)):
            await producer.append([NewRecord(topic, key.encode(), b"%d" % n, [])])
            answer(f"acknowledged {n}")
        return "appended"

    async def join(self, topic: str, group: str) -> str:
        self._topic = topic
        self._consumer = self._log.consumer([topic], group=group, listener=self)
        while not self._consumer.assignment:  # noqa: ASYNC110 - the assignment has no event
            await asyncio.sleep(0.01)
        return "joined"

    async def poll(self) -> str:
        assert self._consumer
        return " ".join((r.value or b"").decode() for r in await self._consumer.poll())

    async def commit(self, partition: str, offset: str) -> str:
        assert self._consumer
        try:
            await self._consumer.commit({TopicPartition(self._topic, int(partition)): int(offset)})
        except LogError as error:
            return type(error).__name__
        return f"committed, lost {self._lost}"

    async def block(self, seconds: str) -> str:
        time.sleep(float(seconds))  # noqa: ASYNC251 - that the event loop stands still is the point
        return "unblocked"

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass

    async def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._lost += len(partitions)


def answer(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - how it talks


async def main() -> None:
    async with open_log(sys.argv[1]) as log:
        child = Child(log)
        answer("open")
        while words := (await asyncio.to_thread(sys.stdin.readline)).split():
            answer(await getattr(child, words[0])(*words[1:]))


if __name__ == "__main__":
    asyncio.run(main())
