"""Ingestion: tenants' files are validated, cut, transformed and loaded, and a heavy tenant keeps nobody waiting.

Five independent services; each has its own file, its own store and its own consumer group. Start with README.md.
"""

from services.ingest import books, intake, large, load, transform
from services.ingest.events import FileArrived

__all__ = ["FileArrived", "services"]

services = [intake.intake, transform.transforming, large.large, load.loading, books.books]
