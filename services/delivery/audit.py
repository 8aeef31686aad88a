"""What must come of parcels, and whether it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from services.books import differences, rows
from services.delivery.events import ParcelBooked, ParcelDispatched
from services.delivery.planning import CHECKS
from services.evidence import Seen


def refusal_of(parcel: ParcelBooked) -> str | None:
    """The check that such a parcel does not pass, if there is one."""
    return next((check.__name__ for check in CHECKS if check(parcel)), None)


def dispatch_findings(stores: str, booked: Iterable[ParcelBooked]) -> list[str]:
    """What is wrong before the vehicles are on their way: each parcel that can be delivered is in one."""
    loaded = [(parcel.parcel_id, parcel.grams) for parcel in booked if refusal_of(parcel) is None]
    carried = rows(stores, "delivery-dispatch", "SELECT sum(grams) FROM vehicles")
    return [
        *differences(
            "loads of",
            Counter(rows(stores, "delivery-dispatch", "SELECT parcel_id, grams FROM loads")),
            Counter(loaded),
        ),
        *differences("grams in", {"all vehicles": carried[0][0]}, {"all vehicles": sum(grams for _, grams in loaded)}),
    ]


def findings(stores: str, booked: Sequence[ParcelBooked], updates: int) -> list[str]:
    """What is wrong in the stores once all vehicles have told so many positions of each parcel, the last one at the door."""
    delivered = [parcel for parcel in booked if refusal_of(parcel) is None]
    at_the_door = [
        (parcel.parcel_id, updates, parcel.destination.latitude, parcel.destination.longitude, 1)
        for parcel in delivered
    ]
    told = [parcel.parcel_id for parcel in booked] + [parcel.parcel_id for parcel in delivered]
    last = "SELECT parcel_id, sequence, round(latitude, 5), round(longitude, 5), is_handed_over FROM parcels"
    return [
        *dispatch_findings(stores, booked),
        *differences("last positions:", Counter(rows(stores, "delivery-tracking", last)), Counter(at_the_door)),
        *differences(
            "messages to",
            Counter(
                parcel_id for (parcel_id,) in rows(stores, "delivery-recipients", "SELECT parcel_id FROM messages")
            ),
            Counter(told),
        ),
    ]


def log_findings(seen: Iterable[Seen], booked: Iterable[ParcelBooked]) -> list[str]:
    """What is wrong in the log: each saga has one end."""
    ends = {True: "ParcelDelivered", False: "RouteRefused"}
    found = [
        (each.data["parcel_id"], each.metadata.type_name)
        for each in seen
        if each.metadata.type_name in {*ends.values(), "ContactLost"}
    ]
    wanted = [(parcel.parcel_id, ends[refusal_of(parcel) is None]) for parcel in booked]
    return differences("ends of", Counter(found), Counter(wanted))


def dispatched(seen: Iterable[Seen]) -> list[ParcelDispatched]:
    """The parcels that are in a vehicle."""
    return [ParcelDispatched(**each.data) for each in seen if each.metadata.type_name == "ParcelDispatched"]
