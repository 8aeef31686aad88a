"""Filters of sagas as conditions in SQL, for stores of either kind. Pure.

What few sagas differ in (type, state, outcome, services, handlers) is a kind, and kinds are few: those that fit are chosen
here, and SQL compares one number. Every condition is true or false, never null, so that `NOT` means what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from choreo.saga.filters import DATA, And, Compare, Filter, Has, Not, Or, matches
from choreo.saga.store.packing import key_of

_OF_KIND = frozenset({"type", "state", "outcome", "service", "handler"})
_COLUMNS = {"started": "started", "updated": "updated", "ended": "ended", "duration": "duration", "events": "events",
            "retries": "retries", "dead_letters": "dead_letters", "owed": "owed", "key": "key", "error": "error",
            "parent": "parent"}  # fmt: skip
_NULLABLE = frozenset({"ended", "parent"})
_INDEXED = frozenset(
    {"id", "key", "parent", "error", "duration", "started", "updated", "retries", "dead_letters", "owed"}
)
_WANTS = {"error": "error <> ''", "retries": "retries > 0", "dead_letters": "dead_letters > 0", "owed": "owed > 0"}
"""What the index of a column that is empty as a rule leaves out."""


NUMBER = r"\s*[+-]?([0-9]{1,200}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*"
"""What is a number, and one that a double holds."""


class Kind(NamedTuple):
    """What few sagas differ in, and how many are so."""

    id: int
    type: str
    state: str
    outcome: str
    services: tuple[str, ...]
    handlers: tuple[str, ...]
    waits_for: tuple[str, ...]
    sagas: int

    def row(self) -> dict[str, Any]:
        """As filters see it."""
        return {
            "type": self.type, "state": self.state, "outcome": self.outcome or None, "service": self.services,
            "handler": self.handlers,
        }  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """Where two databases differ. Parameters are `?` here.

    Attributes:
        contains: whether `{text}` has `{part}` in it; ASCII letters in either case are the same.
        number: `{text}` as a number; null if it is none.
        saga: a saga's id as text.
    """

    contains: str
    number: str
    saga: str


class Condition(NamedTuple):
    """SQL with its parameters."""

    sql: str
    values: tuple[Any, ...] = ()


def condition(fits: Filter, kinds: Sequence[Kind], dialect: Dialect) -> Condition:  # noqa: PLR0911 - one a kind of filter
    """What a row of `sagas` has to be."""
    match fits:
        case And(parts):
            return _joined((condition(part, kinds, dialect) for part in parts), " AND ", "1 = 1")
        case Or(parts):
            return _joined((condition(part, kinds, dialect) for part in parts), " OR ", "1 = 0")
        case Not(part):
            inner = condition(part, kinds, dialect)
            return Condition(f"NOT {inner.sql}", inner.values)
        case Compare(field, "!=", value):
            return condition(Not(Compare(field, "=", value)), kinds, dialect)
        case Compare(field) | Has(field) if field in _OF_KIND:
            return of_kinds(kind.id for kind in kinds if matches(fits, kind.row()))
        case Has(field):
            return _has(field)
        case Compare(field, op, value):
            return _compared(field, op, value, dialect)


def of_kinds(ids: Iterable[int]) -> Condition:
    """That a saga is of one of these kinds."""
    listed = ",".join(map(str, ids))
    return Condition(f"(kind IN ({listed}))" if listed else "(1 = 0)")


def _joined(parts: Iterable[Condition], word: str, none: str) -> Condition:
    listed = list(parts)
    sql = word.join(part.sql for part in listed) or none
    return Condition(f"({sql})", tuple(value for part in listed for value in part.values))


def _has(field: str) -> Condition:
    if field.startswith(DATA):
        of_data = "saga IN (SELECT saga FROM data WHERE name = ? AND value <> '')"
        return Condition(f"({of_data})", (field.removeprefix(DATA),))
    if field == "id":
        return Condition("(1 = 1)")
    column = _COLUMNS[field]
    something = f"{column} <> ''" if field in {"key", "error", "parent"} else f"{column} <> 0"
    if field in _WANTS:
        something = _WANTS[field]
    return Condition(f"({column} IS NOT NULL AND {something})" if field in _NULLABLE else f"({something})")


def _compared(field: str, op: str, value: Any, dialect: Dialect) -> Condition:
    if field.startswith(DATA):
        return _of_data(field.removeprefix(DATA), op, value, dialect)
    if field == "id":
        if op == "=":
            return Condition("(saga = ?)", (key_of(value),))
        return Condition(f"({dialect.contains.format(text=dialect.saga, part='?')})", (value,))
    column = _COLUMNS[field]
    said = dialect.contains.format(text=column, part="?") if op == "contains" else f"{column} {op} ?"
    wants = [f"{column} IS NOT NULL"] if field in _NULLABLE else []
    if field in _WANTS and _leaves_out_nothing(op, value):
        wants.append(_WANTS[field])
    return Condition(f"({' AND '.join([*wants, said])})", (value,))


def _leaves_out_nothing(op: str, value: Any) -> bool:
    """Whether what fits is never empty: then an index of what is not empty will do."""
    if op in {"=", "contains"}:
        return bool(value)
    return isinstance(value, int) and value >= {">": 0, ">=": 1}.get(op, value + 1)


def _of_data(name: str, op: str, value: Any, dialect: Dialect) -> Condition:
    if op == "=":
        said = "value = ?"
    elif op == "contains":
        said = dialect.contains.format(text="value", part="?")
    else:
        said = f"{dialect.number.format(text='value')} {op} ?"
    return Condition(f"(saga IN (SELECT saga FROM data WHERE name = ? AND {said}))", (name, value))


def sharp(fits: Filter) -> Iterator[Filter]:
    """The comparisons that every saga that fits has passed, and for which there is an index."""
    for part in fits.parts if isinstance(fits, And) else (fits,):
        match part:
            case And():
                yield from sharp(part)
            case Compare(field, op, value):
                narrow = field in _INDEXED and op not in {"!=", "contains"}
                if field in _WANTS:
                    narrow = op != "!=" and _leaves_out_nothing(op, value)
                if narrow or (field.startswith(DATA) and op == "="):
                    yield part
            case Has(field) if field in _WANTS:
                yield part


def possible(fits: Filter, kinds: Iterable[Kind]) -> list[Kind]:
    """The kinds that have sagas and of which one may fit."""
    return [kind for kind in kinds if kind.sagas > 0 and _may(fits, kind.row()) is not False]


def _may(fits: Filter, row: dict[str, Any]) -> bool | None:
    """Whether a saga of this kind fits; None where its kind does not say."""
    match fits:
        case And(parts):
            said = [_may(part, row) for part in parts]
            return False if False in said else None if None in said else True
        case Or(parts):
            said = [_may(part, row) for part in parts]
            return True if True in said else None if None in said else False
        case Not(part):
            inner = _may(part, row)
            return None if inner is None else not inner
        case Compare(field) | Has(field):
            return matches(fits, row) if field in _OF_KIND else None
