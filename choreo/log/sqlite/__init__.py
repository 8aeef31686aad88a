"""The embedded, durable log: one SQLite file, shared by several processes of one machine."""

from choreo.log.sqlite.log import SqliteLog

__all__ = ["SqliteLog"]
