"""Parcels to try the flow with: the same seed gives the same ones, some of which cannot be delivered."""

from __future__ import annotations

from random import Random

from services.delivery.events import ParcelBooked, Point
from services.delivery.planning import DEPOTS, MOST_GRAMS

_REFUSED_SHARE = 0.06  # for each of the three reasons
_NEAR, _FAR = 0.25, 3.0  # degrees


def parcels(seed: int, number: int) -> list[ParcelBooked]:
    """`number` parcels drawn from `seed`; a longer list begins with the shorter one."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_parcel(draw, f"d-{seed}-{place:05}") for place in range(1, number + 1)]


def _parcel(draw: Random, parcel_id: str) -> ParcelBooked:
    depot = DEPOTS[draw.choice(sorted(DEPOTS))]
    reach = _FAR if draw.random() < _REFUSED_SHARE else _NEAR
    return ParcelBooked(
        parcel_id=parcel_id,
        recipient="" if draw.random() < _REFUSED_SHARE else f"the recipient of {parcel_id}",
        destination=Point(
            latitude=round(depot.latitude + reach, 5),
            longitude=round(depot.longitude + draw.uniform(-reach, reach), 5),
        ),
        grams=MOST_GRAMS + 1 if draw.random() < _REFUSED_SHARE else draw.randint(100, MOST_GRAMS),
    )
