"""Opening the log's file, and what SQLite's errors mean to its user."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from choreo.errors import ChoreoError, ConfigurationError, LogError, LogUnavailableError
from choreo.log.tables import SCHEMA

T = TypeVar("T")

_APPLICATION_ID = 0x63686C67  # as in schema.sql, and so is the version
_VERSION = 3
_BUSY_TIMEOUT = 10.0
_PRAGMAS = "PRAGMA synchronous = {}; PRAGMA wal_autocheckpoint = 2000; PRAGMA journal_size_limit = 67108864"
_RIGHTS = "give this user the right to write the file and its folder"
_PASSING = {
    "SQLITE_FULL": ("the disk is full", "free some room; appending works again as soon as there is some"),
    "SQLITE_BUSY": ("another process has held its lock for 10 seconds", "see which one: fuser, lsof"),
    "SQLITE_READONLY": ("it may not be written", _RIGHTS),
    "SQLITE_IOERR": ("reading or writing failed", "look at the disk, its free room and the limits of this process"),
}
_PERMANENT = {
    "SQLITE_CANTOPEN": ("it cannot be opened or made", "name a file in a folder this user may write to"),
    "SQLITE_NOTADB": ("it is no SQLite file", "name another file, or move this one away"),
    "SQLITE_CORRUPT": ("it is damaged", "stop all its users, then restore a copy or try: sqlite3 FILE .recover"),
    "SQLITE_PERM": ("this user has no right to it", _RIGHTS),
}


def explain(error: sqlite3.Error, path: Path, *, opening: bool = False) -> ChoreoError:
    """What an error of SQLite means to the user of this file."""
    name = getattr(error, "sqlite_errorname", "")
    code = "_".join(name.split("_")[:2])  # extended names say more than is needed: SQLITE_IOERR_WRITE
    why, remedy = (_PERMANENT | _PASSING).get(code, (str(error), "see the error this one came from"))
    if code in _PASSING and not (opening and code == "SQLITE_READONLY"):
        return LogUnavailableError(f"log {path} is unavailable", why=f"{why} ({name})", remedy=remedy)
    kind = ConfigurationError if opening else LogError
    return kind(f"log {path} cannot be used", why=f"{why} ({name})", remedy=remedy)


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open the file and make the log's tables in it, unless they are there; `synchronous` is SQLite's own setting.

    Raises:
        ConfigurationError, LogUnavailableError: see `explain`.
    """
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, cached_statements=256)
        _prepare(connection, path, synchronous)
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path, opening=True) from error
        if isinstance(error, OSError):
            remedy = "name a file in a folder this user may write to"
            raise ConfigurationError(f"log {path} cannot be opened", why=str(error), remedy=remedy) from error
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: str) -> None:
    made = _is_made(connection, path)
    connection.execute("PRAGMA page_size = 8192")
    # Readers and the writer do not wait for each other in this mode, which the file then keeps.
    if patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()) != ("wal",):
        raise ConfigurationError(
            f"log {path} cannot be shared", why="its file system allows no WAL", remedy="put it on a local disk"
        )
    connection.executescript(_PRAGMAS.format(synchronous))
    if not made:
        patiently(lambda: connection.executescript(SCHEMA))


def _is_made(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the log's tables are there. Refuses a file that is something else."""
    # In this order: somebody else may make them all, in one transaction, between two of these lines.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == _APPLICATION_ID and version != _VERSION:
        newer = ("a newer", "upgrade choreo here")
        age, remedy = newer if version > _VERSION else ("an older", "name another file, or move this one away")
        raise ConfigurationError(f"log {path} was written by {age} choreo", remedy=remedy)
    if application != _APPLICATION_ID and tables:
        raise ConfigurationError(
            f"{path} is a SQLite file, but no log of choreo", remedy="name another file; a log has its file for itself"
        )
    return bool(tables)


def patiently(action: Callable[[], T]) -> T:
    """Do what needs a lock, when it is free.

    SQLite's own waiting sleeps up to 100 ms at a time, in which others come first over and over, and it does not
    wait at all when two processes make the file at once.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
