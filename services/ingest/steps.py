"""What happens to a file and to a chunk, whichever service does it: the small ones' or the large ones'."""

from __future__ import annotations

from typing import TypeVar

from choreo import Retry
from services.ingest import work
from services.ingest.events import ChunkCut, ChunkTransformed, FileArrived, FileMalformed, FileSplit, Sale
from services.ingest.work import MalformedError

Chunk = TypeVar("Chunk", bound=ChunkCut)


def malformed(event: FileArrived | ChunkCut, error: MalformedError) -> FileMalformed:
    """The failure that a malformed file is."""
    return FileMalformed(file_id=event.file_id, tenant=event.tenant, where=error.where, reason=error.reason)


PATIENT = Retry(transient=(OSError,), business={MalformedError: malformed})
"""A disk that does not answer is asked again; a malformed file is a failure of the business, and never tried twice."""


def split(file: FileArrived, chunk: type[Chunk]) -> list[FileSplit | Chunk]:
    """Check a file's header, and cut it into chunks of the pool's own class."""
    places = work.cut(file.path)
    chunks = [
        chunk(
            file_id=file.file_id,
            tenant=file.tenant,
            path=file.path,
            size=file.size,
            number=number,
            start=start,
            end=end,
        )
        for number, (start, end) in enumerate(places)
    ]
    return [FileSplit(file_id=file.file_id, tenant=file.tenant, chunks=len(chunks)), *chunks]


def transform(chunk: ChunkCut) -> ChunkTransformed:
    """Check and clean a chunk's rows."""
    rows = work.clean(chunk.path, chunk.start, chunk.end)
    return ChunkTransformed(
        file_id=chunk.file_id,
        tenant=chunk.tenant,
        size=chunk.size,
        number=chunk.number,
        rows=tuple(Sale.model_construct(**row._asdict()) for row in rows),  # `clean` has checked them
    )
