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
            ConfigurationError: no host or no database is named.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user = login.partition(":")[0]
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = options.pop("schema", "")
        shown = f"postgresql://{user}{'@' if user else ''}{hosts}{parts.path}"
        if not (hosts or "host" in options) or not parts.path.strip("/") or len(schema.encode()) > _MAX_NAME:
            raise ConfigurationError(
                f"the store address {shown!r} is not valid",
                remedy="write postgresql://user:password@host:port/database, optionally with ?schema=name",
            )
        return cls(f"{url.partition('?')[0]}?{urlencode(options)}", shown, schema)


def schema_of(service: str) -> str:
    """The schema of a service: its name as an identifier that needs no quotes.

    Two names may give the same one; the store's owner mark tells them apart.
    """
    name = re.sub(r"[^a-z0-9_]", "_", service.lower())
    if name[0].isdigit() or name.startswith("pg_"):  # the latter is reserved
        name = f"_{name}"
    return name[:_MAX_NAME]
