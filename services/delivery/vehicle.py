"""What a vehicle tells of a parcel on its way: made up for trials, in the order of its radio, which is not that of the road."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from services.delivery.events import ParcelDispatched, Point, PositionUpdated

_REACH = 8
"""By how many places an update is late or early at most."""


def updates(dispatched: ParcelDispatched, number: int) -> list[PositionUpdated]:
    """`number` positions on the straight way to the recipient, the last one with the parcel handed over."""
    return [
        PositionUpdated(
            parcel_id=dispatched.parcel_id,
            sequence=place,
            position=_between(dispatched.start, dispatched.destination, place / number),
            handed_over=place == number,
        )
        for place in range(1, number + 1)
    ]


def _between(start: Point, end: Point, share: float) -> Point:
    return Point(
        latitude=start.latitude + (end.latitude - start.latitude) * share,
        longitude=start.longitude + (end.longitude - start.longitude) * share,
    )


def radioed(told: list[PositionUpdated], seed: int, duplicates: float) -> Iterator[PositionUpdated]:
    """The same updates as they are received: neighbours overtake each other, and a share comes twice."""
    draw = Random(f"{seed} {told[0].parcel_id}")  # noqa: S311 - reproducible samples, no secrets
    for update in sorted(told, key=lambda each: each.sequence + draw.uniform(0, _REACH)):
        yield update
        if draw.random() < duplicates:
            yield update
