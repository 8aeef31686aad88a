"""What the tracker shows as metrics: how many sagas are how, what is owed in them, and how far behind it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from choreo.graph import Graph
from choreo.log.port import Record
from choreo.observe import saga_metrics
from choreo.saga.filters import Compare, Filter, Has
from choreo.saga.fold import fold
from choreo.saga.model import Saga, Surroundings
from choreo.saga.sighting import Letter, Sighting
from choreo.saga.store.port import Summary, TrackerStore

_ENDED = frozenset({"completed", "compensated", "partially-compensated", "conflict"})
_LOOKED_AT = 500
"""Sagas with an open dead letter, or with something owed, that are looked at for who it is: the newest of them."""


def count_read(records: Sequence[Record]) -> None:
    """These records have been read."""
    for topic, number in Counter(record.topic for record in records).items():
        saga_metrics.taken_in(topic, number)


def count_changes(before: Mapping[str, Summary], after: Mapping[str, Summary]) -> None:
    """Sagas were folded: those that are new, and those that have ended, each once."""
    for name, now in after.items():
        was = before.get(name)
        if was is None:
            saga_metrics.saga_started(now.type)
        if now.ended_ms is not None and (was is None or was.ended_ms is None):
            saga_metrics.saga_ended(now.type, now.state, now.duration_ms / 1000)


async def show_sagas(store: TrackerStore, graph: Graph, around: Surroundings) -> None:
    """How many are active, what is owed, and which dead letters are open."""
    active: Counter[tuple[str, str]] = Counter()
    for count in await store.counts():
        if count.state not in _ENDED:
            active[count.type, count.state] += count.sagas
    saga_metrics.set_active(active)
    owed: Counter[tuple[str, str]] = Counter()
    for saga, _ in await _those(store, graph, around, Compare("owed", ">", 0)):
        owed.update(_name(line.compensation) for line in saga.ledger if line.status == "owed" and line.compensation)
    saga_metrics.set_owed(owed)
    letters: Counter[tuple[str, str]] = Counter()
    oldest: dict[str, float] = {}
    for saga, seen in await _those(store, graph, around, Has("dead_letters")):
        for letter in _open(saga, seen):
            service, _ = _name(letter.handler)
            letters[service, letter.kind] += 1
            age = max(0.0, (around.now_ms - letter.failed_ms) / 1000)
            oldest[service] = max(age, oldest.get(service, 0.0))
    saga_metrics.set_dead_letters(letters, oldest)


async def _those(
    store: TrackerStore, graph: Graph, around: Surroundings, which: Filter
) -> list[tuple[Saga, list[Sighting]]]:
    rows = (await store.page(which, limit=_LOOKED_AT)).rows
    found = await store.sightings([row.saga for row in rows])
    return [(fold(each.seen, graph, around), each.seen) for each in found.values()]


def _open(saga: Saga, seen: Sequence[Sighting]) -> list[Letter]:
    dead = {duty.letter for duty in saga.duties if duty.status == "dead"}
    letters = {each.said.id: each.said for each in seen if isinstance(each.said, Letter)}
    return [letters[name] for name in sorted(dead & letters.keys())]


def _name(handler: str) -> tuple[str, str]:
    service, _, name = handler.rpartition(".")
    return service, name
