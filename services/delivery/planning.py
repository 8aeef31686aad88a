"""Planning: checks a parcel in a fixed order, and plans its route. The first check that fails is the answer."""

from __future__ import annotations

from collections.abc import Callable
from math import asin, cos, radians, sin, sqrt

from choreo import Service
from services.delivery.events import ParcelBooked, Point, RoutePlanned, RouteRefused

EARTH_METRES = 6_371_000
REACH_METRES = 60_000
MOST_GRAMS = 31_500
DEPOTS = {
    "berlin": Point(latitude=52.5200, longitude=13.4050),
    "hamburg": Point(latitude=53.5511, longitude=9.9937),
    "munich": Point(latitude=48.1372, longitude=11.5756),
}

planning = Service("delivery-planning")


@planning.on(ParcelBooked)
async def plan(parcel: ParcelBooked) -> RoutePlanned | RouteRefused:
    """Check it and plan it."""
    parcel_id, recipient = parcel.parcel_id, parcel.recipient
    for check in CHECKS:
        if reason := check(parcel):
            return RouteRefused(parcel_id=parcel_id, recipient=recipient, check=check.__name__, reason=reason)
    depot, metres = nearest_depot(parcel.destination)
    return RoutePlanned(
        parcel_id=parcel_id,
        recipient=recipient,
        depot=depot,
        start=DEPOTS[depot],
        destination=parcel.destination,
        metres=round(metres),
        grams=parcel.grams,
    )


def recipient_is_named(parcel: ParcelBooked) -> str | None:
    """Why nobody could be asked for at the door."""
    return None if parcel.recipient.strip() else "nobody is named"


def weight_is_carried(parcel: ParcelBooked) -> str | None:
    """Why no driver can carry it."""
    return f"{parcel.grams} g, where {MOST_GRAMS} g is the most" if parcel.grams > MOST_GRAMS else None


def destination_is_in_reach(parcel: ParcelBooked) -> str | None:
    """Why no vehicle gets there."""
    depot, metres = nearest_depot(parcel.destination)
    return f"{metres / 1000:.0f} km from {depot}, the nearest depot" if metres > REACH_METRES else None


CHECKS: tuple[Callable[[ParcelBooked], str | None], ...] = (
    recipient_is_named,
    weight_is_carried,
    destination_is_in_reach,
)
"""Each says why not, in this order; the last one costs the most."""


def nearest_depot(to: Point) -> tuple[str, float]:
    """The depot that a parcel starts from, and how many metres it is away."""
    return min(((name, metres_between(at, to)) for name, at in DEPOTS.items()), key=lambda each: each[1])


def metres_between(one: Point, other: Point) -> float:
    """The length of the great circle between two points (haversine)."""
    north, south = radians(one.latitude), radians(other.latitude)
    chord = (
        sin((north - south) / 2) ** 2 + cos(north) * cos(south) * sin(radians(one.longitude - other.longitude) / 2) ** 2
    )
    return 2 * EARTH_METRES * asin(sqrt(chord))
