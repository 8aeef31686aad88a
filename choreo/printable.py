"""Texts of others on a terminal or a page: without what steers it, and how wide they are there. Pure."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text without characters that would steer a terminal or a document, or turn its direction."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def columns(text: str) -> int:
    """How many columns of a terminal the text takes, once it is printable."""
    shown = printable(text)
    return len(shown) if shown.isascii() else sum(map(_width, shown))


def _width(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
