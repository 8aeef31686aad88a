"""Sightings and summaries to write."""

from __future__ import annotations

from typing import Any

from choreo.dlq.letters import Place as At
from choreo.log.port import TopicPartition
from choreo.saga.sighting import Again, Letter, Settled, Sighting
from choreo.saga.store import Folded, Place, Summary, TrackerStore, Wait
from choreo.wire.ids import derive_event_id

ORDERS = TopicPartition("orders", 0)
PAYMENTS = TopicPartition("payments", 3)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(saga: str, offset: int = 0, at: TopicPartition = ORDERS, **changes: Any) -> Sighting:
    plain = Sighting(
        At(*at, offset), "event", saga, changes.pop("event_id", saga), "OrderPlaced", "web", None, None, None, 1_005, 1_000,
        "o-1", TRACE,
    )  # fmt: skip
    return plain._replace(**changes)


def effect(saga: str, offset: int = 0, **changes: Any) -> Sighting:
    event_id = derive_event_id(saga, "payments", "charge", offset, time_ms=0)
    given = {"event_id": event_id, "type_name": "PaymentCharged", "source": "payments", "causation_id": saga}
    return event(saga, offset, PAYMENTS, **(given | changes))


def letter(saga: str, letter_id: str, offset: int = 0) -> Sighting:
    said = Letter(letter_id, "payments.charge", At(*ORDERS, 0), "exhausted", "E", "no", "f", 3, 1, 2, 0, True)
    return event(saga, offset, TopicPartition("dlq.payments", 0), kind="letter", said=said)


def again(saga: str, offset: int = 0) -> Sighting:
    said = Again("payments.charge", At(*ORDERS, 0), 2, 5_000, 1_000, 0, False)
    return event(saga, offset, TopicPartition("retry.payments", 0), kind="again", said=said)


def settled(letter_id: str, offset: int = 1) -> Sighting:
    said = Settled(letter_id, "redriven", "ada", "it is back", 9_000, None)
    plain = event("", offset, TopicPartition("dlq.payments", 0), kind="settled", said=said)
    return plain._replace(event_id="", type_name="", source="", traceparent="")


def summary(saga: str, **changes: Any) -> Summary:
    plain = Summary(
        saga, "OrderPlaced", "o-1", "running", "payments.charge has not handled it", None, 1_000, 2_000, None, 2, 0, 0, 0,
        ("payments", "web"), ("payments.charge",), ("PaymentCharged",), None, "", None, None,
    )  # fmt: skip
    return plain._replace(**changes)


async def put(store: TrackerStore, *seen: Sighting) -> list[str]:
    """As a reader that owns the partitions does."""
    places = {each.place.of: Place(each.place.offset + 1, each.written_ms) for each in sorted(seen)}
    await store.take_over(places)
    return await store.add(seen, places)


async def fold(store: TrackerStore, *summaries: Summary, waits: tuple[Wait, ...] = ()) -> None:
    """Keep these summaries, made of what the store has seen by now."""
    found = await store.sightings([each.saga for each in summaries])
    await store.keep([Folded(each, found[each.saga].mark, waits) for each in summaries])


async def filled(store: TrackerStore, *summaries: Summary, **changes: Any) -> None:
    """A store with these sagas."""
    await put(store, *(event(each.saga, number, **changes) for number, each in enumerate(summaries)))
    await fold(store, *summaries)
