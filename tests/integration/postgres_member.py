"""A service's instance in a process of its own, to be frozen: `python -m tests.integration.postgres_member URL`.

It takes orders/0 over, writes a note and stands in its transaction until a line comes in; then it commits and says how
that went.
"""

from __future__ import annotations

import asyncio
import sys

from choreo.store import Effects, Progress
from choreo.store.postgres.store import PostgresStore
from tests.conformance.store.world import P0, SERVICE, TABLES, own


async def main(url: str) -> None:
    """Run once."""
    store = PostgresStore.at(url)
    await store.open(SERVICE, TABLES)
    epoch = await own(store, P0)
    await store.begin()
    await store.db.execute("INSERT INTO notes VALUES ('note', 'frozen')")
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await store.commit(Effects({P0: Progress(9, (), epoch)}))
    except Exception as error:
        print(type(error).__name__, flush=True)  # noqa: T201 - its parent reads it
    else:
        print("committed", flush=True)  # noqa: T201 - same
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
