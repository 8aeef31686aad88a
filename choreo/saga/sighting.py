"""What is kept of a record: who, what, when and where, never the event's own content. Pure.

No Avro is decoded here, so that a whole log can be read at speed and without any service's schemas.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from choreo.dlq.letters import Place

Kind: TypeAlias = Literal["event", "again", "letter", "settled"]


class Again(NamedTuple):
    """What a record of a retry topic says: one handler is to be called (once more) with an event.

    Attributes:
        handler: its id, `service.name`; `service.` alone means all handlers of the service that take the event.
        of: where the event lies.
        attempt: how often it was called already.
        due_ms: when it is to be called; 0 for now.
        redrives: how often the event was redriven, this time included; 0 if nobody did.
        discard: whether it is not to be called, and only what waits behind it goes on.
    """

    handler: str
    of: Place
    attempt: int
    due_ms: int
    first_failed_ms: int
    redrives: int
    discard: bool


class Letter(NamedTuple):
    """What a dead letter says: one handler has given up on an event.

    Attributes:
        handler: its id, `service.name`; `service.` alone where that is no single one (the event could not be read).
        of: where the event lies.
        kind: why, see `choreo.runtime.deadletter`; of other systems, as they say it.
        parked: whether later events of its key wait until it is resolved.
    """

    id: str
    handler: str
    of: Place
    kind: str
    exception: str
    message: str
    fingerprint: str
    attempts: int
    first_failed_ms: int
    failed_ms: int
    redrives: int
    parked: bool


class Settled(NamedTuple):
    """What was done about a dead letter.

    Attributes:
        of: the dead letter's id.
        failed_ms: when that had failed; None if it is not said.
    """

    of: str
    how: Literal["redriven", "discarded"]
    by: str
    why: str
    at_ms: int
    failed_ms: int | None


class Sighting(NamedTuple):
    """One record as the tracker keeps it.

    Attributes:
        place: where it lies; no two sightings have the same.
        kind: `event`; `again` (on a retry topic); `letter` and `settled` (on a dead-letter topic).
        saga: the correlation id. Of an event without one, its own id. Of `settled`, empty: it names its dead letter only.
        event_id, type_name, source, causation_id, compensates, parent_id: as in `choreo.events.Metadata`; of `again` and
            `letter` those of the event they are about.
        produced_ms: when its producer says it was emitted (ms since the epoch); the record's time if it says nothing readable.
        written_ms: the record's time; of `again` and `letter` that of the original.
        key: the record's key as text.
        traceparent: W3C trace context; empty if there is none.
        oddity: what is not as choreo writes it, in words for people; empty if nothing is.
        said: what kinds other than `event` say besides.
    """

    place: Place
    kind: Kind
    saga: str
    event_id: str
    type_name: str
    source: str
    causation_id: str | None
    compensates: str | None
    parent_id: str | None
    produced_ms: int
    written_ms: int
    key: str
    traceparent: str
    oddity: str = ""
    said: Again | Letter | Settled | None = None
