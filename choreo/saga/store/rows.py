"""What was made of a saga, as rows. Pure; both kinds of store keep the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from choreo.saga.store.conditions import Kind
from choreo.saga.store.packing import saga_of
from choreo.saga.store.port import Summary

COLUMNS = (
    "saga, started, kind, updated, ended, duration, key, events, retries, dead_letters, owed, reason, error, parent, until,"
    " changes"
)
"""Of a row of `sagas`, in the order in which `summary` wants them; the first two name a place in a list."""


def kind_of(summary: Summary) -> tuple[str, ...]:
    """The columns of its kind."""
    listed = (json.dumps(names) for names in (summary.services, summary.handlers, summary.waits_for))
    return (summary.type, summary.state, summary.outcome or "", *listed)


def kind(row: Sequence[Any]) -> Kind:
    """A row of `kinds`."""
    number, type_name, state, outcome, *listed, sagas = row
    services, handlers, waits_for = (tuple(json.loads(names)) for names in listed)
    return Kind(number, type_name, state, outcome, services, handlers, waits_for, sagas)


def columns_of(summary: Summary, key: bytes, kind_id: int) -> tuple[Any, ...]:
    """A row of `sagas`, in the order of `COLUMNS`."""
    return (
        key, summary.started_ms, kind_id, summary.updated_ms, summary.ended_ms, summary.duration_ms, summary.key,
        summary.events, summary.retries, summary.dead_letters, summary.owed, _clean(summary.reason), _clean(summary.error),
        summary.parent, summary.until_ms, summary.changes_ms,
    )  # fmt: skip


def _clean(text: str) -> str:
    """Without NUL, which PostgreSQL's texts cannot hold; others' words may have it."""
    return text.replace("\0", "\\0")


def summary(row: Sequence[Any], of: Kind) -> Summary:
    """What `columns_of` was given."""
    key, started, _, updated, ended, _, name, events, retries, letters, owed, reason, error, parent, until, changes = (
        row
    )
    state_and_outcome: Any = of.state, of.outcome or None  # as they were given
    return Summary(
        saga_of(bytes(key)), of.type, name, state_and_outcome[0], reason, state_and_outcome[1], started, updated, ended, events,
        retries, letters, owed, of.services, of.handlers, of.waits_for, until, error, parent, changes,
    )  # fmt: skip
