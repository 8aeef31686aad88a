"""Sagas as what JSON knows: the attributes of `choreo.saga.model`, times in ms since the epoch, places by name. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from choreo.saga.model import Saga


def as_dict(saga: Saga) -> dict[str, Any]:
    """A saga as JSON objects, lists and values."""
    return {field.name: plain(getattr(saga, field.name)) for field in dataclasses.fields(saga)}


def plain(value: Any) -> Any:
    """The value with named fields as dicts and sequences as lists; texts that no encoding has are escaped."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(one) for name, one in value._asdict().items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(name): plain(one) for name, one in value.items()}
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
