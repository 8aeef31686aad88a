"""Whatever lies in a log is seen, folded and kept: one record must not hold up all others."""

from __future__ import annotations

import random
import string

import pytest

from choreo.log.port import Record
from choreo.saga.filters import EVERY
from choreo.saga.reading import sight
from choreo.saga.store import Place, TrackerStore
from choreo.saga.tracker.folding import Folder
from tests.tracker.play import GRAPH

WHEN = 1_700_000_000_000
LONG = "".join(random.Random(1).choices(string.ascii_lowercase, k=10_000))
"""So long that no index of PostgreSQL takes it, and not to be compressed."""
HUGE = b"\x7f" + b"\xff" * 7
"""The greatest number that a dead letter can name."""
RETRY = {
    "choreo.retry.handler": "book", "choreo.retry.topic": "trips", "choreo.retry.partition": "0",
    "choreo.retry.offset": "0", "choreo.retry.attempt": "1", "choreo.retry.due": "0", "choreo.retry.first-failed": "1",
}  # fmt: skip
DEAD = {"choreo.dlq.handler": "book", "__dlq.errors.group": "flights"}


def record(topic: str, **headers: str | bytes) -> Record:
    plain = {"ce_id": "e", "ce_type": "TripRequested", "ce_source": "portal", "ce_time": "2024-01-01T00:00:00Z",
             "ce_correlationid": "s"}  # fmt: skip
    every = {**plain, **headers}
    told = [(name, value if isinstance(value, bytes) else value.encode()) for name, value in every.items()]
    return Record(topic, 0, 0, WHEN, b"k", b"x", told)


ODD = {
    "a long parent": record("trips", ce_parentid=LONG),
    "a long cause": record("trips", ce_causationid=LONG),
    "NUL in a cause": record("trips", ce_causationid="\0", ce_compensates="\0", ce_parentid="\0"),
    "many calls": record("retry.flights", **{**RETRY, "choreo.retry.attempt": "3000000000"}),
    "calls without end": record("retry.flights", **{**RETRY, "choreo.redrive.count": str(2**63 - 1)}),
    "a retry in ages": record("retry.flights", **{**RETRY, "choreo.retry.due": str(2**63 - 1)}),
    "a retry of ages ago": record("retry.flights", **{**RETRY, "choreo.retry.first-failed": str(-(2**63) + 1)}),
    "NUL in the topic of a retry": record("retry.flights", **{**RETRY, "choreo.retry.topic": "a\0b"}),
    "NUL in the handler of a retry": record("retry.flights", **{**RETRY, "choreo.retry.handler": "a\0b"}),
    "a dead letter with long names": record("dlq.x", **{**DEAD, "choreo.dlq.id": LONG, "__dlq.errors.group": LONG}),
    "a dead letter with huge numbers": record(
        "dlq.x", **DEAD, **{"choreo.dlq.failed-at": HUGE, "__dlq.errors.delivery.count": HUGE, "choreo.dlq.redrive-count": HUGE}
    ),
    "NUL in a dead letter": record(
        "dlq.x", **dict.fromkeys((*DEAD, "__dlq.errors.message", "choreo.dlq.id", "__dlq.errors.topic"), "\x00" * 5000)
    ),
    "a resolution with huge numbers": record("dlq.x", **{"choreo.dlq.resolves": LONG, "choreo.dlq.at": HUGE}),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_odd_record_is_kept(odd: Record, store: TrackerStore) -> None:
    seen = sight(odd)
    assert seen is not None
    await store.take_over([seen.place.of])
    await store.add([seen], {seen.place.of: Place(1, WHEN)})
    folder = Folder(store, GRAPH)
    folder.note({})
    folder.reached_ms = WHEN
    await folder.fold(await store.marked(10), WHEN)
    assert await store.marked(10) == []
    assert [each.saga for each in (await store.page(EVERY)).rows] == ([seen.saga] if seen.saga else [])


def test_an_effect_names_its_cause_as_that_names_itself() -> None:
    """The cause is odd and its id is cut; the effect is not, but for that id."""
    for event_id in (LONG, "a\0b"):
        cause, effect = sight(record("trips", ce_id=event_id)), sight(record("trips", ce_causationid=event_id))
        assert cause is not None
        assert effect is not None
        assert effect.causation_id == cause.event_id
