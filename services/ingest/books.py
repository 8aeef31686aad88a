"""Books: knows when the last chunk of a file is loaded, and ends each file exactly once, loaded or rejected.

Whoever comes first decides: the table `outcomes` has one row a file, and only the insert that makes it counts.
"""

from __future__ import annotations

from choreo import Context, Service
from services.ingest.events import ChunkLoaded, FileArrived, FileLoaded, FileMalformed, FileRejected, FileSplit

TABLES = """
CREATE TABLE IF NOT EXISTS outcomes (
    file_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    outcome TEXT NOT NULL,
    rows INTEGER NOT NULL
);
"""

books = Service("ingest-books", tables=TABLES)


@books.join(FileSplit, ChunkLoaded, count=lambda split: split.chunks, unless=(FileMalformed, FileRejected))
async def finish(split: FileSplit, loaded: list[ChunkLoaded], ctx: Context) -> FileLoaded | None:
    """The last chunk of a file has been loaded."""
    rows = sum(chunk.rows for chunk in loaded)
    if not await _is_ended_now(split, "loaded", ctx, rows=rows):
        return None
    return FileLoaded(file_id=split.file_id, tenant=split.tenant, rows=rows)


@books.on(FileMalformed)
async def reject(malformed: FileMalformed, ctx: Context) -> FileRejected | None:
    """One place that is not as agreed, and nothing of the file is kept; the first that is found is named."""
    if not await _is_ended_now(malformed, "rejected", ctx):
        return None
    reason = f"{malformed.where}: {malformed.reason}"
    return FileRejected(file_id=malformed.file_id, tenant=malformed.tenant, reason=reason)


@books.deadline(FileArrived, within="6h", unless=(FileLoaded, FileRejected))
async def give_up(file: FileArrived, ctx: Context) -> FileRejected | None:
    """Six hours, and something is still missing: a file that nobody can read, say."""
    if not await _is_ended_now(file, "given up", ctx):
        return None
    return FileRejected(file_id=file.file_id, tenant=file.tenant, reason="it was not loaded within six hours")


async def _is_ended_now(
    file: FileSplit | FileMalformed | FileArrived, outcome: str, ctx: Context, *, rows: int = 0
) -> bool:
    """Whether the file was under way, and is ended with this."""
    made = await ctx.db.execute(
        "INSERT INTO outcomes VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        (file.file_id, file.tenant, outcome, rows),
    )
    return made == 1
