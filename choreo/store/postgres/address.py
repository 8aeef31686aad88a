"""The address of a PostgreSQL store, and what a service calls its schema."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from choreo.errors import ConfigurationError

_MAX_NAME = 63
"""Bytes of an identifier that PostgreSQL keeps."""


class Address(NamedTuple):
    """Where a store is.

    Attributes:
        conninfo: for libpq, with the password.
        shown: for messages and logs, without it.
        schema: empty if the service's name decides.
    """

    conninfo: str
    shown: str
    schema: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """`postgresql://user:password@host:port/database[?schema=name&...]`; further options are libpq's own.

        Raises:
            ConfigurationError: no host or no database is named. Said without the password.
        """
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2]
        database = parts.path.strip("/")
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        shown = f"postgresql://{user}{'@' if user else ''}{hosts}/{database}"
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = options.pop("schema", "")
        if not hosts or not database or len(schema.encode()) > _MAX_NAME:
            raise ConfigurationError(
                f"the store address {shown!r} is not valid",
                remedy="write postgresql://user:password@host:port/database, optionally with ?schema=name",
            )
        return cls(parts._replace(scheme="postgresql", query=urlencode(options)).geturl(), shown, schema)


def schema_of(service: str) -> str:
    """The schema of a service: its name as an identifier that needs no quotes.

    Two names may give the same one; the store's owner mark tells them apart.
    """
    name = re.sub(r"[^a-z0-9_]", "_", service.lower())[:_MAX_NAME]
    return name if re.match(r"[a-z_](?<!pg_)", name) and not name.startswith("pg_") else f"_{name}"[:_MAX_NAME]
