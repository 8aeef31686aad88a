"""Filters of sagas as text, both ways. Pure; what a filter means, `choreo.saga.filters` says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NoReturn, get_args

from choreo import durations
from choreo.errors import ConfigurationError, DeclarationError, FilterError
from choreo.saga.filters import (
    DATA,
    EVERY,
    FIELDS,
    OPS,
    Ago,
    And,
    Compare,
    Field,
    Filter,
    Has,
    Not,
    Op,
    Or,
    Value,
    field_of,
)

MAX_LENGTH, MAX_DEPTH, MAX_PARTS = 4000, 40, 100
"""What a filter may be at most: characters, parentheses and `not` inside each other, comparisons."""
_MAX_NUMBER = 10**15
_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_YEAR_10000 = 253_402_300_800_000

_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>[()]|!=|<>|<=|>=|=|<|>)|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s()=<>!"']+))""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_WORD = re.compile(r"""[^\s()=<>!"']+\Z""")
_DATA_NAME = re.compile(r"[^\W\d]\w*(\.\w+)*\Z")
_KEYWORDS = frozenset({"and", "or", "not", "has", "exists", "contains"})
_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_REMEDIES = {
    "time": "write -2h, 2026-10-18, 2026-10-18T14:30:00Z or now",
    "duration": "write 250ms, 2s, 15m, 6h or 3d",
    "number": "write a whole number",
}


class _Token(NamedTuple):
    at: int
    text: str
    kind: str


def parse(asked: str, *, searchable: Collection[str] | None = None) -> Filter:
    """The filter that a text says; an empty text fits every saga.

    Args:
        searchable: the payload fields there are, without `data.`; unless given, any may be named.

    Raises:
        FilterError: it cannot be read; the place and the remedy are said.
    """
    if len(asked) > MAX_LENGTH:
        raise FilterError(MAX_LENGTH, f"it has more than {MAX_LENGTH:,} characters", remedy="ask for less at once")
    tokens = list(_tokens(asked))
    return _Parser(tokens, searchable).whole() if len(tokens) > 1 else EVERY


def _tokens(asked: str) -> Iterable[_Token]:
    at, end = 0, len(asked.rstrip())
    while at < end:
        found = _TOKEN.match(asked, at)
        if found is None:
            at += len(asked[at:]) - len(asked[at:].lstrip())
            unclosed = asked[at] in "\"'"
            what = "a text without its closing quote" if unclosed else f"{asked[at]!r} means nothing here"
            raise FilterError(at, what, remedy="close the quote" if unclosed else "write !=, or quote it")
        kind = found.lastgroup or ""
        yield _Token(found.start(kind), found[kind], kind)
        at = found.end()
    yield _Token(end, "", "end")


class _Parser:
    """Reads tokens by recursive descent: `or` binds least, then `and`, then `not`."""

    def __init__(self, tokens: list[_Token], searchable: Collection[str] | None) -> None:
        self._tokens, self._next, self._depth, self._count = tokens, 0, 0, 0
        self._searchable = searchable

    def whole(self) -> Filter:
        found = self._either()
        if (token := self._look()).kind != "end":
            self._wrong(token, "expected `and`, `or` or the end")
        return found

    def _either(self) -> Filter:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self) -> Filter:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(self._look().at, f"more than {MAX_DEPTH} levels", remedy="write it flatter")
        found = self._inside()
        self._depth -= 1
        return found

    def _inside(self) -> Filter:
        token = self._look()
        if self._take("not"):
            return Not(self._one())
        if self._take("("):
            found = self._either()
            if not self._take(")"):
                self._wrong(self._look(), f"expected `)` for the `(` at character {token.at + 1}")
            return found
        self._count += 1
        if self._count > MAX_PARTS:
            raise FilterError(token.at, f"more than {MAX_PARTS} comparisons", remedy="ask for less at once")
        if self._take("has") or self._take("exists"):
            return Has(self._field()[0])
        return self._comparison()

    def _comparison(self) -> Compare:
        name, field = self._field()
        token = self._look()
        op = {"<>": "!="}.get(token.text.lower(), token.text.lower())
        if token.kind == "quoted" or op not in get_args(Op):
            self._wrong(token, f"expected a comparison after `{name}`", f"`{name}` has {_listed(OPS[field.kind])}")
        if op not in OPS[field.kind]:
            what = f"`{name}` cannot be compared by `{op}`"
            raise FilterError(token.at, what, remedy=f"it has {_listed(OPS[field.kind])}")
        self._next += 1
        return Compare(name, op, self._value(name, field, op))

    def _field(self) -> tuple[str, Field]:
        token = self._look()
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            self._wrong(token, "expected a field", f"fields are: {_listed(FIELDS)} and {DATA}NAME")
        self._next += 1
        if token.text.startswith(DATA):
            self._check_data(token)
        elif token.text not in FIELDS:
            close = difflib.get_close_matches(token.text.lower(), FIELDS, 1)
            guess = f"did you mean {close[0]}? " if close else ""
            remedy = f"{guess}Fields are: {_listed(FIELDS)} and {DATA}NAME"
            raise FilterError(token.at, f"there is no field {token.text!r}", remedy=remedy)
        return token.text, field_of(token.text)

    def _check_data(self, token: _Token) -> None:
        name, known = token.text.removeprefix(DATA), self._searchable
        if not _DATA_NAME.match(name):
            raise FilterError(token.at, f"{name!r} is no name of a payload field", remedy="such as data.order_id")
        if known is not None and name not in known:
            there = f"these are: {_listed(f'{DATA}{field}' for field in sorted(known))}" if known else "there are none"
            raise FilterError(token.at, f"{token.text!r} is not declared searchable", remedy=there)

    def _value(self, name: str, field: Field, op: Op) -> Value:
        token = self._look()
        if token.kind not in {"quoted", "word"} or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            self._wrong(token, f"expected a value after `{name} {op}`", "a text with other characters stands in quotes")
        self._next += 1
        said = _ESCAPE.sub(r"\1", token.text[1:-1]) if token.kind == "quoted" else token.text
        if field.choices and said not in field.choices:
            remedy = f"it is one of: {_listed(field.choices)}"
            raise FilterError(token.at, f"{said!r} is no {name}", remedy=remedy)
        value = _read(said, field, op)
        if value is None:
            kind = "number" if field.kind == "data" else field.kind
            raise FilterError(token.at, f"{said!r} is no {kind}", remedy=_REMEDIES[kind])
        return value

    def _look(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, word: str) -> bool:
        token = self._look()
        found = token.kind in {"word", "sign"} and token.text.lower() == word
        self._next += found
        return found

    def _wrong(self, token: _Token, expected: str, remedy: str = "") -> NoReturn:
        what = "it ends there" if token.kind == "end" else f"{token.text!r} stands there"
        raise FilterError(token.at, expected, why=what, remedy=remedy)


def _read(said: str, field: Field, op: Op) -> Value | None:
    """The value as its kind of field has it; None if it is none."""
    match field.kind:
        case "time":
            return _time(said)
        case "duration":
            return _duration(said)
        case "number":
            return int(said) if re.fullmatch(r"[0-9]{1,15}", said) else None
        case "data" if op in {"<", "<=", ">", ">="}:
            return float(said) if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", said) else None
    return said


def _duration(said: str) -> int | None:
    try:
        ms = round(durations.seconds(said) * 1000)
    except (DeclarationError, OverflowError):
        return None
    return ms if ms <= _MAX_NUMBER else None


def moment_of(said: str, now_ms: int) -> int:
    """The ms of a moment written as in a filter: `-2h`, `2026-10-18`, `2026-10-18T14:30:00Z`, `now`.

    Raises:
        ConfigurationError: it is none.
    """
    found = _time(said)
    if found is None:
        raise ConfigurationError(f"{said!r} is no time", remedy=_REMEDIES["time"])
    return now_ms - found.ms if isinstance(found, Ago) else found


def _time(said: str) -> int | Ago | None:
    if said.lower() == "now":
        return Ago(0)
    if said.startswith("-"):
        ago = _duration(said[1:])
        return None if ago is None else Ago(ago)
    try:
        moment = datetime.fromisoformat(said)
        ms = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MS
    except (ValueError, OverflowError):
        return None
    return ms if 0 <= ms < _YEAR_10000 else None


def text(asked: Filter) -> str:
    """The filter as text, which `parse` reads as the same filter."""
    match asked:
        case Compare(name, op, value):
            return f"{name} {op} {_said(value, name)}"
        case Has(name):
            return f"has {name}"
        case Not(part):
            return f"not {_inner(part)}"
        case And(parts):
            return " and ".join(map(_inner, parts))
        case Or(parts):
            return " or ".join(text(part) if isinstance(part, And) else _inner(part) for part in parts)


def _inner(part: Filter) -> str:
    return f"({text(part)})" if isinstance(part, (And, Or)) else text(part)


def _said(value: Value, name: str) -> str:
    kind = field_of(name).kind
    if isinstance(value, Ago):
        return f"-{_lasting(value.ms)}" if value.ms else "now"
    if isinstance(value, float):
        return f"{value:.15f}".rstrip("0").rstrip(".")
    if isinstance(value, str):
        return value if _WORD.match(value) and value.lower() not in _KEYWORDS else quoted(value)
    if kind == "time":
        return (_EPOCH + value * _MS).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _lasting(int(value)) if kind == "duration" else str(value)


def _lasting(ms: int) -> str:
    """A duration in the largest unit that needs no fraction."""
    unit, size = next(((unit, size) for unit, size in _UNITS.items() if ms % size == 0))
    return f"{ms // size}{unit}"


def quoted(value: str) -> str:
    """The text in quotes, as a filter's value: for whoever puts a filter together from parts."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
