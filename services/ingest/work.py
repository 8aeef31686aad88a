"""The work itself: cutting a CSV file at its lines, and cleaning rows. Knows files and text, and nothing of events."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple

HEADER = ["day", "article", "country", "quantity", "price"]
CHUNK = 50_000
"""Bytes of a chunk, up to the end of its last line."""


class MalformedError(Exception):
    """Something in a file is not as agreed; trying again would find the same."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class Row(NamedTuple):
    """A cleaned row."""

    day: str
    article: str
    country: str
    quantity: int
    cents: int


def cut(path: str, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """Where the chunks of a file begin and end.

    Raises:
        MalformedError: it has no header, or another one.
        OSError: it cannot be read just now.
    """
    with Path(path).open("rb") as file:
        header = file.readline().decode(errors="replace").strip()
        if header.split(",") != HEADER:
            raise MalformedError("line 1", f"the header is {header[:80]!r}, and not {','.join(HEADER)!r}")
        places: list[tuple[int, int]] = []
        start = file.tell()
        while True:
            file.seek(start + chunk)
            file.readline()
            end = file.tell()
            last = not file.read(1)
            end = min(end, file.seek(0, 2)) if last else end
            if end > start:
                places.append((start, end))
            if last:
                return places
            start = end


def clean(path: str, start: int, end: int) -> list[Row]:
    """The cleaned rows of a part of a file.

    Raises:
        MalformedError: a row is not as agreed.
        OSError: the file cannot be read just now.
    """
    with Path(path).open("rb") as file:
        file.seek(start)
        content = file.read(end - start)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {start + error.start}", "is no UTF-8") from error
    return list(_rows(text, start))


def _rows(text: str, start: int) -> Iterator[Row]:
    for number, cells in enumerate(csv.reader(text.splitlines()), start=1):
        where = f"line {number} after byte {start}"
        if len(cells) != len(HEADER):
            raise MalformedError(where, f"has {len(cells)} cells instead of {len(HEADER)}")
        day, article, country, quantity, price = (cell.strip() for cell in cells)
        try:
            pieces = int(quantity)
            cents = int((Decimal(price) * 100).to_integral_value()) * pieces
            yield Row(date.fromisoformat(day).isoformat(), article.lower(), country.upper(), pieces, cents)
        except (ValueError, InvalidOperation) as error:
            raise MalformedError(where, f"is {','.join(cells)[:80]!r}") from error
