"""The contracts of delivery."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from choreo import Event, Failure

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]


class Point(BaseModel):
    """A place on the earth, in degrees."""

    model_config = ConfigDict(frozen=True)

    latitude: Latitude
    longitude: Longitude


class ParcelBooked(Event, topic="delivery.parcels", key="parcel_id"):
    """Somebody wants a parcel brought to a place; it starts the saga."""

    parcel_id: str
    recipient: str
    destination: Point
    grams: Annotated[int, Field(gt=0)]


class RoutePlanned(Event, topic="delivery.routes", key="parcel_id"):
    """All checks have passed: this is the way."""

    parcel_id: str
    recipient: str
    depot: str
    start: Point
    destination: Point
    metres: int
    grams: int


class RouteRefused(Failure, topic="delivery.routes", key="parcel_id", ends="failed"):
    """A check has not passed; the ones after it were not made."""

    parcel_id: str
    recipient: str
    check: str
    reason: str


class ParcelDispatched(Event, topic="delivery.dispatches", key="parcel_id"):
    """A vehicle has the parcel. It tells its positions under `tracking`, which is the saga's id."""

    parcel_id: str
    recipient: str
    vehicle: str
    tracking: str
    start: Point
    destination: Point


class PositionUpdated(Event, topic="delivery.positions", key="parcel_id"):
    """Where a parcel is, as its vehicle says; hundreds of them, late, twice or in any order.

    Attributes:
        sequence: counted by the vehicle from 1.
        handed_over: whether the parcel is with its recipient: the last one.
    """

    parcel_id: str
    sequence: Annotated[int, Field(ge=1)]
    position: Point
    handed_over: bool = False


class ContactLost(Event, topic="delivery.tracking", key="parcel_id"):
    """A vehicle has said nothing for too long."""

    parcel_id: str
    sequence: int
    position: Point


class ParcelDelivered(Event, topic="delivery.tracking", key="parcel_id", ends="completed"):
    """The parcel is with its recipient, after so many updates."""

    parcel_id: str
    sequence: int
    position: Point
