"""Which worker of pytest-xdist gets which tests, and when: `make test` has more of them than cores, since many tests wait.

A worker that is free takes the next unit of work. Units are single tests, but for those that share a server which no
others want: one worker starts it, and has them all.
"""

from __future__ import annotations

import zlib

import pytest
from xdist.scheduler import LoadScopeScheduling

_SHARED = ("_kafka_access", "_kafka_cluster", "_kafka_refusals", "_kafka_rights", "_postgres_faults", "_registry")
"""Files in tests/integration whose servers no other file wants."""
_CHAOS = 2
"""How many tests may run at a time that have enough processes for a core or two."""


def unit_of(nodeid: str) -> str:
    """What the unit is called to which a test belongs: by itself if it is a unit of its own."""
    file, _, test = nodeid.partition("::")
    if file.startswith("tests/chaos/"):
        return f"chaos {zlib.crc32(test.encode()) % _CHAOS}"
    return file if file.removesuffix(".py").endswith(_SHARED) else nodeid


def turn(item: pytest.Item) -> int:
    """Long units first, so that at the end no worker has one alone: what is shared, what is about Kafka, what is on Kafka."""
    if unit_of(item.nodeid) != item.nodeid:
        return 0
    if item.get_closest_marker("kafka"):
        return 1 if "/test_kafka_" in item.nodeid else 2
    return 3


class Scheduling(LoadScopeScheduling):
    """Gives units to the workers, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
