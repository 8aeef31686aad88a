"""A tracker in a process of its own, whose clock stands at the moment of the ground truth. Arguments: log, store."""

from __future__ import annotations

import asyncio
import sys

from choreo.log import open_log
from choreo.observe.logs import configure_logging
from choreo.runtime.run import run_to_end
from choreo.saga.store import make_tracker_store
from choreo.saga.tracker import Options, Tracker
from tests.tracker.play import GRAPH
from tests.tracker.truth import NOW_MS

GROUP = "tracker-of-truth"


async def main(log_url: str, store_url: str) -> None:
    """Track until killed."""
    store = make_tracker_store(store_url)
    quick = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"} if log_url.startswith("kafka://") else {}
    async with open_log(log_url, quick) as log:
        while True:
            try:
                await store.open()
                break
            except Exception as error:
                print(error, file=sys.stderr)  # noqa: T201
                await asyncio.sleep(0.2)
        tracker = Tracker(log, store, GRAPH, Options(group=GROUP, keep_ms=2**53), now_ms=lambda: NOW_MS)
        print("at work", flush=True)  # noqa: T201
        await tracker.run()


if __name__ == "__main__":
    configure_logging(level="warning")
    run_to_end(main(*sys.argv[1:]))
