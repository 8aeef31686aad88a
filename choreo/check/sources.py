"""What a handler's source tells: where it is, whether it may have an effect, what it overwrites, whom it calls.

Hints only: what a handler does by way of other functions is not followed.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from choreo.check.finding import Place
from choreo.check.sql import Assignment, assignments
from choreo.handler import Handler

_KEYS = {"idempotency_key", "event_id"}
_NETWORK = {
    *("aiohttp", "aioboto3", "aiosmtplib", "boto3", "botocore", "grpc", "httpx", "httpx2", "paramiko", "requests"),
    *("sendgrid", "slack_sdk", "smtplib", "stripe", "twilio", "urllib3"),
}
_READING = {
    *("check", "classify", "compute", "count", "describe", "estimate", "evaluate", "exists", "fetch", "find", "get"),
    *("has", "head", "is", "list", "load", "lookup", "options", "peek", "predict", "query", "quote", "read", "score"),
    *("search", "select", "validate", "verify"),
}


@dataclass(frozen=True)
class Source:
    """What is known of a handler's source; nothing, where it cannot be read.

    Attributes:
        place: where it is.
        has_effect: whether it seems to leave something behind.
        assigns: the columns that it sets.
        calls: calls of outside services that change something, while it never mentions an idempotency key.
    """

    place: Place | None = None
    has_effect: bool = False
    assigns: tuple[Assignment, ...] = ()
    calls: tuple[str, ...] = ()


class Sources:
    """Reads sources, each file once."""

    def __init__(self) -> None:
        self._files: dict[str, dict[int, ast.AST]] = {}

    def of(self, handler: Handler) -> Source:
        """The source of a handler."""
        function = inspect.unwrap(handler.function)
        code = getattr(function, "__code__", None)
        if code is None:
            return Source()
        node = self._functions(code.co_filename).get(code.co_firstlineno)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return Source(Place(code.co_filename, code.co_firstlineno))
        names = getattr(function, "__globals__", {})
        context = node.args.args[-1].arg if handler.takes_context and node.args.args else None
        calls = tuple(dict.fromkeys(_calls(node, context, names)))
        return Source(
            Place(code.co_filename, node.lineno),
            _has_effect(node, context, calls),
            tuple(made for text in _texts(node, names) for made in assignments(text)),
            () if _mentions(node, _KEYS) else calls,
        )

    def _functions(self, file: str) -> dict[int, ast.AST]:
        """The functions in a file, by the line of their first decorator."""
        if file not in self._files:
            try:
                tree = ast.parse("".join(linecache.getlines(file)))
            except SyntaxError:  # no Python: a template, a notebook
                tree = ast.Module([], [])
            self._files[file] = {
                min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]): node
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        return self._files[file]


def _has_effect(function: ast.AST, context: str | None, calls: Collection[str]) -> bool:
    """Whether it writes to its store, remembers steps, calls clients that do not only read, or hands its context on."""
    attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    used = sum(isinstance(node, ast.Name) and node.id == context for node in ast.walk(function))
    looked_into = sum(isinstance(node.value, ast.Name) and node.value.id == context for node in attributes)
    writes = (f"{context}.db.execute", f"{context}.step", f"{context}.idempotency_key")
    return bool(calls) or used > looked_into or any(ast.unparse(node).startswith(writes) for node in attributes)


def _mentions(function: ast.AST, names: set[str]) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.keyword) and node.arg in names)
        for node in ast.walk(function)
    )


def _texts(function: ast.AST, names: Mapping[str, Any]) -> Iterator[str]:
    """The texts in a function, and those of its module that it names."""
    for node in ast.walk(function):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(node, ast.Name):
            value = names.get(node.id)
        if isinstance(value, str):
            yield value


def _calls(function: ast.AST, context: str | None, names: Mapping[str, Any]) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            path = ast.unparse(node.func).split(".")
            outside = path[:2] == [context, "state"] or _is_network(names.get(path[0]))
            if outside and path[-1].lower().split("_")[0] not in _READING and not path[-1][:1].isupper():
                yield ".".join(path)


def _is_network(value: object) -> bool:
    """Whether it is a module, function or object of a library that talks to other machines."""
    module = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
    if not isinstance(module, str):
        module = type(value).__module__
    return module.partition(".")[0] in _NETWORK
