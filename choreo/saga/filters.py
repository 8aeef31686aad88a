"""The filter of sagas that the command line, the Python API and HTTP share, as plain data. Pure.

    state = stuck and type = OrderPlaced and started > -2h and (service = payments or error contains "timeout")
    not has dead_letters and duration > 5s and key = o-17 and data.order_id = "o 17"

`parse` (in `choreo.saga.filter_text`) makes the data from text, `text` makes text from it: the same filter again. What it means:

- It is two-valued, as in Python and unlike in SQL: a comparison with what a saga does not have is false, and `not` of it is true.
  `!=` is exactly `not (… = …)`.
- A field of `several` values fits if one of them fits. `service != x` is true if none is x.
- `contains` looks for the text; ASCII letters in either case are the same, all others are as they are. An empty text is in everything.
- `has` (or `exists`): a text or a set that is not empty, a number above 0, a time that is there.
- Times are ms since the epoch, durations are ms. `Ago` is a time before the moment of asking; `at_moment` replaces it, so whoever
  translates into SQL calls that first and finds plain numbers alone.
- A payload field `data.NAME` is compared as text by `=`, `!=` and `contains`; by `<`, `<=`, `>`, `>=` as a number (the value is a float then), which is
  false for one whose value is no number.

Every class here has the attributes it shows and nothing else: a translator is one `match` statement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from choreo.saga.model import State
from choreo.saga.outcome import Ending

Op: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]
FieldKind: TypeAlias = Literal["choice", "text", "time", "duration", "number", "data"]

STATES: tuple[str, ...] = get_args(State)
OUTCOMES: tuple[str, ...] = get_args(Ending)
DATA = "data."
"""How the names of payload fields begin."""


class Field(NamedTuple):
    """A field that filters know.

    Attributes:
        choices: its values, if these are few.
        several: whether a saga may have more than one value.
    """

    kind: FieldKind
    meaning: str
    choices: tuple[str, ...] = ()
    several: bool = False


FIELDS: Mapping[str, Field] = {
    "state": Field("choice", "how it is", STATES),
    "outcome": Field("choice", "how it has ended; only of one that has", OUTCOMES),
    "type": Field("text", "the type of its first event"),
    "key": Field("text", "its business key: that of its first event"),
    "id": Field("text", "its correlation id"),
    "parent": Field("text", "the saga in which it was started"),
    "service": Field("text", "a service that has emitted or handled an event of it, or owes to", several=True),
    "handler": Field("text", "a handler that something is expected of (service.name)", several=True),
    "error": Field("text", "the last error of a handler"),
    "started": Field("time", "when its first event was produced"),
    "updated": Field("time", "when its last event was produced, or when it last failed or was redriven"),
    "ended": Field("time", "when it came to rest"),
    "duration": Field("duration", "from `started` to `ended`, or to `updated` while it has not ended"),
    "events": Field("number", "how many events it has"),
    "retries": Field("number", "how many calls of handlers were repeated"),
    "dead_letters": Field("number", "how many dead letters are open"),
    "owed": Field("number", "how many effects are to be undone"),
}

OPS: Mapping[FieldKind, tuple[Op, ...]] = {
    "choice": ("=", "!="),
    "text": ("=", "!=", "contains"),
    "time": ("<", "<=", ">", ">="),
    "duration": ("<", "<=", ">", ">="),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "data": ("=", "!=", "contains", "<", "<=", ">", ">="),
}
"""Which comparisons a kind of field has. Times and durations are never exactly something."""


class Ago(NamedTuple):
    """So many ms before the moment of asking."""

    ms: int


Value: TypeAlias = "str | int | float | Ago"
"""Of `choice` and `text` a string, of `time` an int or an `Ago`, of `duration` and `number` an int."""


@dataclass(frozen=True, slots=True)
class Compare:
    """`field op value`."""

    field: str
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class Has:
    """`has field`."""

    field: str


@dataclass(frozen=True, slots=True)
class Not:
    """`not part`."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """All parts; without any, it fits every saga."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = "Compare | Has | Not | And | Or"
EVERY: Filter = And(())
"""The filter that fits every saga."""


def field_of(name: str) -> Field:
    """What is known of a field that a filter names."""
    return Field("data", "a payload field") if name.startswith(DATA) else FIELDS[name]


def at_moment(asked: Filter, now_ms: int) -> Filter:
    """The filter with times in the place of every `Ago`."""
    match asked:
        case Compare(value=Ago(ms)):
            return replace(asked, value=now_ms - ms)
        case Not(part):
            return Not(at_moment(part, now_ms))
        case And(parts):
            return And(tuple(at_moment(part, now_ms) for part in parts))
        case Or(parts):
            return Or(tuple(at_moment(part, now_ms) for part in parts))
    return asked


def matches(asked: Filter, row: Mapping[str, Any]) -> bool:
    """Whether a saga fits.

    Args:
        asked: without any `Ago`.
        row: its fields by their names; `data` is a mapping of its payload fields. What is None or not there, it does not have.
    """
    match asked:
        case Not(part):
            return not matches(part, row)
        case And(parts):
            return all(matches(part, row) for part in parts)
        case Or(parts):
            return any(matches(part, row) for part in parts)
        case Has(name):
            return any(value not in {"", 0} for value in _values(row, name))
        case Compare(name, "!=", value):
            return not matches(Compare(name, "=", value), row)
        case Compare(name, op, value):
            return any(_fits(op, there, value) for there in _values(row, name))


def _values(row: Mapping[str, Any], name: str) -> Collection[Any]:
    value = (row.get("data") or {}).get(name.removeprefix(DATA)) if name.startswith(DATA) else row.get(name)
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def _fits(op: Op, there: Any, value: Any) -> bool:
    if op == "contains":
        return ascii_lower(value) in ascii_lower(str(there))
    if op == "=":
        return bool((str(there) if isinstance(value, str) else there) == value)
    try:
        there = float(there)
    except (TypeError, ValueError, OverflowError):
        return False
    return bool({"<": there < value, "<=": there <= value, ">": there > value, ">=": there >= value}[op])


_LOWER = {ord(char): char.lower() for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def ascii_lower(text: str) -> str:
    """The text with small ASCII letters: what `lower` makes of it in SQLite, and in PostgreSQL with collation C."""
    return text.translate(_LOWER)
