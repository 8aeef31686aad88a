"""A member of a consumer group in a process of its own: `python -m tests.conformance.log_member URL SETTINGS TOPIC GROUP`.

Polls and prints each record as `partition offset value`, and commits it before the next poll; on `leave` on its standard
input it closes and ends. Meant to be killed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from choreo.log import open_log
from choreo.log.port import TopicPartition


async def _serve(url: str, settings: dict[str, str], topic: str, group: str) -> None:
    async with open_log(url, settings) as log:
        consumer = log.consumer([topic], group=group)
        leaving = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        announced = False
        while not leaving.done():
            records = await consumer.poll(100, 0.05)
            for r in records:
                print(r.partition, r.offset, (r.value or b"").decode(), flush=True)  # noqa: T201 - how it tells its parent
            if records:
                await consumer.commit({TopicPartition(r.topic, r.partition): r.offset + 1 for r in records})
            if consumer.assignment and not announced:
                announced = True
                print("ready", flush=True)  # noqa: T201 - same
        await consumer.close()


if __name__ == "__main__":
    url_, settings_, topic_, group_ = sys.argv[1:]
    asyncio.run(_serve(url_, json.loads(settings_), topic_, group_))
