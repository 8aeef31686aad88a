"""What PostgreSQL's errors mean to who runs a service: one line each, and whether waiting can help."""

from __future__ import annotations

import re
from typing import NamedTuple

import psycopg

from choreo.errors import ConfigurationError, DeadlockError, StoreUnavailableError


class _Trouble(NamedTuple):
    """One kind of trouble: its mark in `SQLSTATE: message`, what to do, and whether it heals by waiting."""

    mark: re.Pattern[str]
    remedy: str
    heals: bool = True


def _trouble(mark: str, remedy: str, *, heals: bool = True) -> _Trouble:
    return _Trouble(re.compile(mark, re.DOTALL), remedy, heals)


# A refused connection has no SQLSTATE, so some are known by their words.
_KNOWN = [
    _trouble("^53100", "its disk is full; make room"),
    _trouble("^53300|^:.*(too many|connection slots)", "raise its max_connections, or run fewer instances"),
    _trouble("^(40P01|40001)", "this is tried again"),
    _trouble("^55P03", "another transaction holds a lock for too long; see pg_stat_activity"),
    _trouble("^25006", "it is read-only, as a standby is; name the primary, or add target_session_attrs=read-write"),
    _trouble("^25P03", "this instance stood still in a transaction, and the server gave it up"),
    _trouble("^:.*(starting up|shutting down|in recovery)", "it is starting or stopping; this is tried again"),
    _trouble(
        "^28|^:.*(password|authentication|role .* does not exist|pg_hba)",
        "check the user and the password of its address, and the server's pg_hba.conf",
        heals=False,
    ),
    _trouble("^3D000|^:.*database .* does not exist", "create the database (createdb), or name another", heals=False),
    _trouble("^:.*(translate host name|resolve)", "check the host in its address"),
    _trouble(
        "^:.*(certificate|SSL|invalid)", "check the options in its address: sslmode, sslrootcert, ...", heals=False
    ),
    _trouble(
        "^42501|^:.*permission denied",
        "grant the user CREATE on the database, or USAGE and CREATE on a schema made for it",
        heals=False,
    ),
    _trouble("^(08|57P|58|XX|:)", "is the server up, and can it be reached from here?"),
    _trouble("^0A000.*cached plan", "its tables were changed; this is tried again"),
]
_DEADLOCKS = frozenset({"40P01", "40001"})
_PREFIX = re.compile(r"connection failed: |connection to server at .*? failed: |FATAL: +")


def explain(
    error: psycopg.Error, store: str, *, opening: bool = False
) -> ConfigurationError | StoreUnavailableError | None:
    """The store's trouble behind this error; None if it is about somebody's SQL.

    Args:
        store: its address, without the password.
        opening: whether the service is starting: what no waiting heals is then an error of the configuration.
    """
    known = isinstance(error, (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError))
    said = str(error).partition("\n")[0]
    marked = f"{error.sqlstate or ''}: {said}"
    if not (known or opening or (marked.startswith("0A000") and "cached plan" in marked)):
        return None
    for mark, remedy, heals in _KNOWN:
        if mark.search(marked):
            kind: type[ConfigurationError | StoreUnavailableError] = StoreUnavailableError
            if error.sqlstate in _DEADLOCKS:
                kind = DeadlockError
            elif opening and not heals:
                kind = ConfigurationError
            return kind(
                f"the store {store} is not usable", why=_PREFIX.sub("", said) or type(error).__name__, remedy=remedy
            )
    return None
