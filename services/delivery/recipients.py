"""Recipients: tells them what they want to know, and of hundreds of positions nothing. A leaf."""

from __future__ import annotations

from choreo import Context, Retry, Service
from services.delivery.events import ContactLost, ParcelDelivered, ParcelDispatched, RouteRefused

Told = RouteRefused | ParcelDispatched | ContactLost | ParcelDelivered

MESSAGES: dict[type[Told], str] = {
    RouteRefused: "We cannot bring your parcel {0.parcel_id}: {0.reason}.",
    ParcelDispatched: "Your parcel {0.parcel_id} is on its way with {0.vehicle}.",
    ContactLost: "We do not know just now where your parcel {0.parcel_id} is, and look for it.",
    ParcelDelivered: "Your parcel {0.parcel_id} has arrived.",
}

recipients = Service("delivery-recipients", tables="CREATE TABLE IF NOT EXISTS messages (parcel_id TEXT, text TEXT)")


@recipients.on(*MESSAGES, retry=Retry(transient=(OSError,)))
async def tell(event: Told, ctx: Context) -> None:
    """Queue the message."""
    await ctx.db.execute("INSERT INTO messages VALUES ($1, $2)", (event.parcel_id, MESSAGES[type(event)].format(event)))
