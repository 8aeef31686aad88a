"""Intake: validates the files of usual size, and cuts them into chunks."""

from __future__ import annotations

from choreo import Service
from services.ingest import steps
from services.ingest.events import FileMalformed, FileSplit, SmallChunk, SmallFile

intake = Service("ingest-intake")


@intake.on(SmallFile, retry=steps.PATIENT)
def split(file: SmallFile) -> list[FileSplit | SmallChunk] | FileMalformed:
    """Check a file's header, and cut it; in a thread, since disks make one wait."""
    return steps.split(file, SmallChunk)
