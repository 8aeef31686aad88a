"""Opening the file of the tracker's SQLite store: who writes, who asks, its settings and migrations."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from uuid import uuid4

from choreo.errors import ConfigurationError, StoreMissingError
from choreo.saga.store.sqlite.writing import Q
from choreo.store.sql import load_migrations
from choreo.store.sqlite.database import begin_patiently, is_busy
from choreo.store.sqlite.opening import prepare, statements

_APPLICATION_ID = 0x63687472
"""Marks the file as a tracker's."""
_CACHE = 192 * 1024
"""KB of pages in memory: the parts of indexes that grow in their middle."""


def owned(path: Path) -> sqlite3.Connection:
    """A connection that holds the right to write: the operating system gives it back however its process ends.

    Raises:
        ConfigurationError: another instance has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = sqlite3.connect(f"{path}.owner", isolation_level=None, check_same_thread=False, timeout=0)
    try:
        owner.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        owner.close()
        if not is_busy(error):
            raise
        raise ConfigurationError(
            f"the tracker's store {path} is in use",
            why="another instance of the tracker writes it, and a SQLite file takes one at a time",
            remedy="stop that one, or let several share CHOREO_TRACKER_STORE=postgresql://...",
        ) from error
    return owner


def writer(path: Path) -> sqlite3.Connection:
    """The connection that writes, with the tables of this release.

    Raises:
        ConfigurationError: the file is something else, or of a newer choreo.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    prepare(connection, path, "NORMAL")  # a power cut may undo the last commits, progress and all: they are read again
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA busy_timeout = 0")
    begin_patiently(connection)
    try:
        _migrate(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    _check(connection, path)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(Q["make_migrations"])
    version = connection.execute(Q["version"]).fetchone()[0]
    migrations = load_migrations("choreo.saga.store.sqlite")
    if version > migrations[-1].number:
        raise ConfigurationError(f"the tracker's store {path} was written by a newer choreo", remedy="upgrade this one")
    for migration in migrations[version:]:
        for statement in statements(migration.sql):
            connection.execute(statement)
        connection.execute(Q["migrated"], (migration.number,))
    connection.execute(Q["be_born"], (uuid4().hex,))


def check(path: Path) -> None:
    """That a file may be a tracker's store.

    Raises:
        ConfigurationError: it is something else.
    """
    if path.exists():
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        try:
            _check(connection, path)
        finally:
            connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if mark != _APPLICATION_ID and tables:
        remedy = "give the tracker a file of its own: CHOREO_TRACKER_STORE"
        raise ConfigurationError(f"{path} is no tracker's store", remedy=remedy)


def remove(path: Path) -> None:
    """Remove what there is of a store; whoever does holds the right to write it, see `owned`."""
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def replace(path: Path, rebuilt: Path) -> None:
    """Copy a store over another one, in one transaction: whoever has that open sees it change, and never half of it.

    Raises:
        ConfigurationError: somebody else builds another one there, or has.
    """
    check(path)
    owner = owned(rebuilt)
    try:
        if not rebuilt.exists():
            remedy = "rebuild once more, one at a time"
            raise ConfigurationError(f"the rebuilt store {rebuilt} is gone", why="it was rebuilt twice", remedy=remedy)
        target = sqlite3.connect(path, isolation_level=None, timeout=30)
        source = sqlite3.connect(rebuilt, isolation_level=None, timeout=30)
        try:
            prepare(target, path, "NORMAL")
            source.backup(target)
        finally:
            source.close()
            target.close()
        remove(rebuilt)
        for end in (".owner", ".owner-journal"):
            Path(f"{rebuilt}{end}").unlink(missing_ok=True)
    finally:
        owner.close()


def reader(path: Path) -> sqlite3.Connection:
    """A connection that only asks.

    Raises:
        ConfigurationError: there is no such store (StoreMissingError), or it is something else.
    """
    missing = StoreMissingError(
        f"there is no tracker's store {path}", remedy="let the tracker make it: choreo tracker run MODULE"
    )
    if not path.exists():
        raise missing
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = -{_CACHE // 4}")
    try:
        _check(connection, path)
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # it is being made
            raise missing
    except ConfigurationError:
        connection.close()
        raise
    return connection
