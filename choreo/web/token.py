"""The token that whoever asks has to know."""

from __future__ import annotations

import secrets

from choreo.errors import ConfigurationError

LEAST_TOKEN = 16


def token_from(given: str) -> tuple[str, bool]:
    """The token that was given, or a new one; and whether it is new.

    Raises:
        ConfigurationError: it can be guessed, or no header can hold it.
    """
    if not given:
        return secrets.token_urlsafe(24), True
    if len(given) < LEAST_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        remedy = f"take {LEAST_TOKEN} or more letters and digits, such as: {secrets.token_urlsafe(24)}"
        raise ConfigurationError("CHOREO_TRACKER_TOKEN cannot be a token", remedy=remedy)
    return given, False
