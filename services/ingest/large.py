"""The pool for large files: does with them what intake and transform do with others, and keeps nobody waiting.

Run it with low priority (`nice`), or on machines of its own, and with as many instances as the heavy tenants pay for.
"""

from __future__ import annotations

from choreo import Service
from services.ingest import steps
from services.ingest.events import ChunkTransformed, FileMalformed, FileSplit, LargeChunk, LargeFile

large = Service("ingest-large", concurrency=2)


@large.on(LargeFile, retry=steps.PATIENT)
def split(file: LargeFile) -> list[FileSplit | LargeChunk] | FileMalformed:
    """Check a file's header, and cut it."""
    return steps.split(file, LargeChunk)


@large.on(LargeChunk, retry=steps.PATIENT)
def transform(chunk: LargeChunk) -> ChunkTransformed | FileMalformed:
    """Check and clean a chunk's rows."""
    return steps.transform(chunk)
