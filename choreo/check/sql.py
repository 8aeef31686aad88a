"""Which columns a statement of SQL sets, read with two regular expressions: a hint, no parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_UPDATE = re.compile(
    r"\bUPDATE\s+(?:OR\s+\w+\s+)?(?P<table>[\w.\"]+)\s+SET\s+(?P<sets>.+?)(?:\bWHERE\b(?P<where>.*))?;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_UPSERT = re.compile(
    r"\bINSERT\s+INTO\s+(?P<table>[\w.\"]+).*?\bDO\s+UPDATE\s+SET\s+(?P<sets>.+?)(?:\bWHERE\b(?P<where>.*))?;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_SET = re.compile(r"\s*(?P<column>[\w\"]+)\s*=\s*(?P<value>.+?)\s*\Z", re.DOTALL)
_WORD = re.compile(r"\w+")


class Assignment(NamedTuple):
    """A column that is set to a value which says nothing of the one before, whatever that was.

    Attributes:
        value: as it is written; placeholders all look alike.
    """

    table: str
    column: str
    value: str


def assignments(text: str) -> Iterator[Assignment]:
    """The columns that a statement overwrites: not those that it counts up, nor those that its WHERE looks at."""
    for statement in (_UPDATE, _UPSERT):
        found = statement.search(text)
        if not found or (statement is _UPDATE and _UPSERT.search(text)):
            continue
        guarded = _words(found["where"] or "")
        for part in _parts(found["sets"]):
            one = _SET.match(part)
            if one and (column := one["column"].strip('"').lower()) not in guarded | _words(_unqualified(one["value"])):
                yield Assignment(found["table"].strip('"').lower(), column, one["value"])


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _unqualified(value: str) -> str:
    """The value without what an upsert would have inserted."""
    return re.sub(r"\bexcluded\.\w+", "?", value, flags=re.IGNORECASE)


def _parts(sets: str) -> list[str]:
    """Split at the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(sets):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(sets[start:at])
            start = at + 1
    return [*parts, sets[start:]]
