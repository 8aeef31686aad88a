"""The ingestion's contracts: each event, its topic and its key. The services share these and nothing else.

Every event's key is the tenant, so that what a tenant sends is worked on in the order in which it came. What belongs to
a large file travels by topics of its own: whoever works on small files never has a large one before it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from choreo import Event, Failure, Route, route

LARGE = 500_000
"""Bytes from which a file is a large one."""


def _pools(topic: str) -> Route:
    """The topic of small files, or that of large ones."""

    def pool(event: Any) -> str:
        return f"{topic}.large" if event.size >= LARGE else topic

    return route(pool, among=(topic, f"{topic}.large"))


class Sale(BaseModel):
    """One row of a file, cleaned."""

    model_config = ConfigDict(frozen=True)

    day: str
    article: str
    country: str
    quantity: int
    cents: int


class FileArrived(Event, topic=_pools("ingest.files"), key="tenant"):
    """A tenant's file lies where `path` says; it starts the saga."""

    file_id: str
    tenant: str
    path: str
    size: int


class SmallFile(FileArrived, topic="ingest.files", key="tenant", name="FileArrived"):
    """What the intake reads of them."""


class LargeFile(FileArrived, topic="ingest.files.large", key="tenant", name="FileArrived"):
    """What the pool for large files reads of them."""


class FileSplit(Event, topic="ingest.splits", key="tenant"):
    """The file is in order as far as its header, and was cut into so many chunks."""

    file_id: str
    tenant: str
    chunks: int


class ChunkCut(Event, topic=_pools("ingest.chunks"), key="tenant"):
    """A part of a file, from one line to another; `size` is that of the whole file."""

    file_id: str
    tenant: str
    path: str
    size: int
    number: int
    start: int
    end: int


class SmallChunk(ChunkCut, topic="ingest.chunks", key="tenant", name="ChunkCut"):
    """What is transformed for everybody."""


class LargeChunk(ChunkCut, topic="ingest.chunks.large", key="tenant", name="ChunkCut"):
    """What the pool for large files transforms."""


class ChunkTransformed(Event, topic=_pools("ingest.rows"), key="tenant"):
    """The rows of a chunk, checked and cleaned."""

    file_id: str
    tenant: str
    size: int
    number: int
    rows: tuple[Sale, ...]


class ChunkLoaded(Event, topic="ingest.loads", key="tenant"):
    """The rows of a chunk are in the target table."""

    file_id: str
    tenant: str
    number: int
    rows: int


class ChunkUnloaded(Event, topic="ingest.loads", key="tenant"):
    """The rows of a chunk of a rejected file are out of the target table again."""

    file_id: str
    tenant: str
    number: int


class FileMalformed(Failure, topic="ingest.problems", key="tenant"):
    """Something in the file is not as agreed. Whoever finds it says so; a file may have several such places."""

    file_id: str
    tenant: str
    where: str
    reason: str


class FileLoaded(Event, topic="ingest.outcomes", key="tenant", ends="completed"):
    """The whole file is in the target table: the good end."""

    file_id: str
    tenant: str
    rows: int


class FileRejected(Failure, topic="ingest.outcomes", key="tenant", ends="failed"):
    """Nothing of the file will be in the target table: the other end."""

    file_id: str
    tenant: str
    reason: str
