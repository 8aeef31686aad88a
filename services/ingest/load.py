"""Load: brings rows into the target table, and takes those of a rejected file out again."""

from __future__ import annotations

from choreo import Context, Service
from services.ingest.events import ChunkLoaded, ChunkTransformed, ChunkUnloaded, FileRejected

TABLES = """
CREATE TABLE IF NOT EXISTS sales (
    tenant TEXT NOT NULL,
    file_id TEXT NOT NULL,
    chunk INTEGER NOT NULL,
    day TEXT NOT NULL,
    article TEXT NOT NULL,
    country TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    cents INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS sales_by_chunk ON sales (file_id, chunk);
"""

loading = Service("ingest-load", tables=TABLES)


@loading.on(ChunkTransformed)
async def load(chunk: ChunkTransformed, ctx: Context) -> ChunkLoaded:
    """Write a chunk's rows."""
    await ctx.db.execute_many(
        "INSERT INTO sales VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (chunk.tenant, chunk.file_id, chunk.number, row.day, row.article, row.country, row.quantity, row.cents)
            for row in chunk.rows
        ],
    )
    return ChunkLoaded(file_id=chunk.file_id, tenant=chunk.tenant, number=chunk.number, rows=len(chunk.rows))


@loading.compensates(load, on=(FileRejected,))
async def unload(loaded: ChunkLoaded, rejected: FileRejected, ctx: Context) -> ChunkUnloaded:
    """Delete them."""
    await ctx.db.execute("DELETE FROM sales WHERE file_id = $1 AND chunk = $2", (loaded.file_id, loaded.number))
    return ChunkUnloaded(file_id=rejected.file_id, tenant=rejected.tenant, number=loaded.number)
