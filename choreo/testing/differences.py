"""What differs between events, in words that a failing test can show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from choreo.events import Event


def differences(left: Any, right: Any) -> list[str] | None:
    """How what was found (`left`) differs from what is expected; None if these are not events, or lists of them."""
    if isinstance(left, Event) and isinstance(right, Event):
        return [f"{_name(left)} is not what is expected", *_between(left, right, "")]
    if not _is_list(left) or not _is_list(right) or not (left or right):
        return None
    lines = [f"{len(left)} events, {len(right)} expected"]
    for number, (found, expected) in enumerate(zip_longest(left, right)):
        if found is None or expected is None:
            lines.append(f"[{number}] {'is missing' if found is None else 'is one too many'}: {found or expected!r}")
        elif found != expected:
            lines += _between(found, expected, f"[{number}] ")
    return lines


def _is_list(found: Any) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str) and all(isinstance(one, Event) for one in found)


def _between(found: Event, expected: Event, place: str) -> list[str]:
    if type(found) is not type(expected):
        return [f"{place}is {found!r}, expected {expected!r}"]
    return [
        f"{place}{_name(found)}.{name}: {getattr(found, name)!r}, expected {getattr(expected, name)!r}"
        for name in type(found).model_fields
        if getattr(found, name) != getattr(expected, name)
    ]


def _name(event: Event) -> str:
    return type(event).__name__
