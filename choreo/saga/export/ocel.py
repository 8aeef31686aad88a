"""Sagas as an object-centric event log: OCEL 2.0, JSON (https://www.ocel-standard.org/2.0/ocel20-schema-json.json). Pure.

Objects are the sagas, their business keys and the services; each event is related to its saga, to its own key, and to
the service that emitted it. Values are texts, as the standard's schema wants them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from choreo.saga.export.plain import plain
from choreo.saga.model import Saga, SagaEvent
from choreo.saga.views.lines import YEAR_10000, emitter_of, moment

_OBJECTS: Mapping[str, Sequence[str]] = {
    "saga": ("state", "reason", "outcome", "type"),
    "business key": (),
    "service": (),
}
_ATTRIBUTES = ("handler", "cause", "compensates", "place", "copies", "oddity")


def log(sagas: Sequence[Saga]) -> dict[str, Any]:
    """The log of these sagas."""
    events = {event.id: (event, saga) for saga in sagas for event in saga.events}
    types = sorted({_type(event) for event, _ in events.values()})
    objects = {one["id"]: one for saga in sagas for one in _objects(saga)}
    found = {
        "eventTypes": [{"name": name, "attributes": _declared(_ATTRIBUTES)} for name in types],
        "objectTypes": [{"name": name, "attributes": _declared(names)} for name, names in _OBJECTS.items()],
        "events": [_event(event, saga) for event, saga in events.values()],
        "objects": list(objects.values()),
    }
    return {name: plain(value) for name, value in found.items()}


def _declared(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"name": name, "type": "string"} for name in names]


def _type(event: SagaEvent) -> str:
    return event.type or "unknown type"


def _event(event: SagaEvent, saga: Saga) -> dict[str, Any]:
    said = {
        "handler": event.handler or "",
        "cause": event.cause or "",
        "compensates": event.compensates or "",
        "place": str(event.places[0]) if event.places else "",
        "copies": str(len(event.places)),
        "oddity": event.oddity,
    }
    related = [(f"saga:{saga.id}", "part of"), (f"service:{emitter_of(event)}", "emitted by")]
    related += [(f"key:{event.key}", "about")] if event.key else []
    return {
        "id": event.id,
        "type": _type(event),
        "time": _time(event.produced_ms),
        "attributes": [{"name": name, "value": value} for name, value in said.items()],
        "relationships": [{"objectId": id_, "qualifier": how} for id_, how in related],
    }


def _objects(saga: Saga) -> Iterator[dict[str, Any]]:
    said = {"state": saga.state, "reason": saga.reason, "outcome": saga.outcome or "", "type": saga.type}
    at = _time(saga.updated_ms)
    yield {
        "id": f"saga:{saga.id}",
        "type": "saga",
        "attributes": [{"name": name, "value": value, "time": at} for name, value in said.items()],
        "relationships": [{"objectId": f"key:{saga.key}", "qualifier": "about"}] if _has_key(saga) else [],
    }
    for event in saga.events:
        if event.key:
            yield {"id": f"key:{event.key}", "type": "business key", "attributes": [], "relationships": []}
        yield {"id": f"service:{emitter_of(event)}", "type": "service", "attributes": [], "relationships": []}


def _has_key(saga: Saga) -> bool:
    """Whether the saga's key is one of its events', so that it is an object here."""
    return bool(saga.key) and any(event.key == saga.key for event in saga.events)


def _time(ms: int) -> str:
    """RFC 3339; what no calendar has is the nearest that one has."""
    return moment(max(0, min(ms, YEAR_10000 - 1)))
