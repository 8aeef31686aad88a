"""What a rule is, and what it finds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from choreo.check.model import Model

Severity: TypeAlias = Literal["error", "warning", "info"]
"""`error`: a saga can end wrongly. `warning`: it can under conditions, or it waits for ever. `info`: worth a look."""

Path: TypeAlias = tuple[str, ...]
"""Events and handlers in turn, causes first."""


class Place(NamedTuple):
    """Where a handler is written: a file, and the line of its `def`."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        code: the rule.
        handler: the id of the handler at which it shows.
        about: the events and handlers that it is about besides, by which it is known again.
        message: what is wrong, one sentence.
        remedy: what to do.
        paths: how a saga comes to it.
        place: where the handler is written, if that is known.
    """

    code: str
    severity: Severity
    handler: str
    about: tuple[str, ...]
    message: str
    remedy: str
    paths: tuple[Path, ...] = ()
    place: Place | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same finding, wherever its lines have moved and however it is worded."""
        return hashlib.sha256("\0".join((self.code, self.handler, *self.about)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A static rule: one function, and what people ask about it.

    Attributes:
        code: for ever the same.
        title: a few words.
        means: what it looks for.
        why: what goes wrong in production.
        mend: what to do.
        example: services that break it, as Python.
        find: looks.
    """

    code: str
    title: str
    means: str
    why: str
    mend: str
    example: str
    find: Callable[[Model], Iterator[Finding]]
