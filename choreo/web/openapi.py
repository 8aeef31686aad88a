"""The OpenAPI 3.1 document of the questions, from their own declarations."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from choreo.saga.export import KINDS
from choreo.web.operations import OPERATIONS, Operation
from choreo.web.parameters import Parameter
from choreo.web.problems import TITLES
from choreo.web.shapes import Shapes
from choreo.web.watching import WATCH

BASE = "/api/v1"
_ERRORS = (400, 401, 404, 503)
_PROBLEM = {
    "description": "What is wrong (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "at": {"type": "integer", "description": "Where in the filter, in characters from 0."},
    },
    "required": ["type", "title", "status", "detail"],
}


def document() -> dict[str, Any]:
    """The document."""
    shapes = Shapes()
    paths = {f"{BASE}{one.path}": {"get": _operation(one, shapes)} for one in OPERATIONS}
    paths[f"{BASE}{WATCH.path}"] = {"get": _watch(shapes)}
    paths["/api/openapi.json"] = {"get": _self()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "choreo: questions about sagas",
            "version": version("choreo"),
            "description": "Read-only. Times are milliseconds since the epoch, durations milliseconds.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**dict(sorted(shapes.components.items())), "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {f"Problem{status}": _problem(status) for status in (*_ERRORS, 405)},
        },
    }


def _operation(one: Operation, shapes: Shapes) -> dict[str, Any]:
    if one.result is None:
        content: dict[str, Any] = {kind.media_type: {} for kind in KINDS.values()}
    else:
        content = {"application/json": {"schema": shapes.of(one.result)}}
    return {
        "operationId": one.name,
        "summary": one.meaning,
        "parameters": [_parameter(each) for each in one.parameters],
        "responses": {"200": {"description": one.meaning, "content": content}, **_errors(_ERRORS)},
    }


def _watch(shapes: Shapes) -> dict[str, Any]:
    shapes.of(WATCH.result)
    return {
        "operationId": WATCH.name,
        "summary": WATCH.meaning,
        "parameters": [*map(_parameter, WATCH.parameters), _LAST_ID],
        "responses": {
            "200": {
                "description": "Server-sent events named `saga`, with a `Listed` as data.",
                "content": {"text/event-stream": {}},
            },
            **_errors((400, 401, 503)),
        },
    }


_LAST_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that came: go on behind it. Wins over `after`.",
    "schema": {"type": "string", "maxLength": 64},
}


def _self() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document.",
        "responses": {"200": {"description": "This document.", "content": content}, **_errors((400, 401))},
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    schema = {name: value for name, value in one.schema.items() if value != []}
    least = {"minLength": 1} if one.where == "path" else {}
    return {
        "name": one.name,
        "in": one.where,
        "description": one.meaning,
        "required": one.required,
        "schema": {**schema, **least},
    }


def _errors(statuses: Sequence[int]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in (*statuses, 405)}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": TITLES[status], "content": content}
