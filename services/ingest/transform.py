"""Transform: checks and cleans the rows of the files of usual size."""

from __future__ import annotations

from choreo import Service
from services.ingest import steps
from services.ingest.events import ChunkTransformed, FileMalformed, SmallChunk

transforming = Service("ingest-transform")


@transforming.on(SmallChunk, retry=steps.PATIENT)
def transform(chunk: SmallChunk) -> ChunkTransformed | FileMalformed:
    """Check and clean a chunk's rows."""
    return steps.transform(chunk)
