"""Services whose stores are in one PostgreSQL database."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from choreo.log.port import Log
from tests.integration.runtime_world import World

TABLES = "CREATE TABLE IF NOT EXISTS effects (id TEXT, n INTEGER, seq bigint GENERATED ALWAYS AS IDENTITY)"
EFFECTS = "SELECT id, n FROM effects ORDER BY seq"


class PostgresWorld(World):
    """A world whose services have their stores in one database, each in a schema of its own."""

    def __init__(self, log: Log, folder: Path, url: str, schemas: str) -> None:
        super().__init__(log, folder)
        self.url = url
        self.schemas = schemas

    def settings(self, **changes: Any) -> Any:
        """Where things are here."""
        return super().settings(store=f"{self.url}?schema={self.schemas}_{{service}}", **changes)

    def rows(self, service: str, sql: str = EFFECTS) -> list[tuple[Any, ...]]:
        """What is durable in a service's store; nothing while there is none."""
        with psycopg.connect(self.url) as connection, suppress(psycopg.errors.UndefinedTable):
            connection.execute(f"SET search_path = {self.schemas}_{service}")
            return connection.execute(sql).fetchall()
        return []
