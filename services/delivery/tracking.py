"""Tracking: folds hundreds of positions into one row a parcel, and notices when a vehicle falls silent.

The row holds the position with the highest sequence number, so that late, doubled and overtaken updates change nothing. A
hand-over always counts, once: its vehicle may have driven on, and told so sooner.
"""

from __future__ import annotations

from choreo import Context, Service
from services.delivery.events import ContactLost, ParcelDelivered, PositionUpdated

TABLES = """
CREATE TABLE IF NOT EXISTS parcels (
    parcel_id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    latitude DOUBLE PRECISION NOT NULL,
    longitude DOUBLE PRECISION NOT NULL,
    is_handed_over INTEGER NOT NULL
);
"""

_FOLD = """
INSERT INTO parcels VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (parcel_id) DO UPDATE SET
    sequence = excluded.sequence,
    latitude = excluded.latitude,
    longitude = excluded.longitude,
    is_handed_over = excluded.is_handed_over
WHERE parcels.is_handed_over = 0 AND (excluded.sequence > parcels.sequence OR excluded.is_handed_over = 1)
"""

tracking = Service("delivery-tracking", tables=TABLES)


@tracking.on(PositionUpdated, ordered=False)
async def follow(update: PositionUpdated, ctx: Context) -> ParcelDelivered | None:
    """Fold it into the parcel's row; the one that hands the parcel over ends the saga."""
    at = update.position
    is_news = await ctx.db.execute(
        _FOLD, (update.parcel_id, update.sequence, at.latitude, at.longitude, int(update.handed_over))
    )
    if not (is_news and update.handed_over):
        return None
    return ParcelDelivered(parcel_id=update.parcel_id, sequence=update.sequence, position=at)


@tracking.deadline(PositionUpdated, within="30m", unless=(PositionUpdated, ParcelDelivered))
async def miss(update: PositionUpdated) -> ContactLost:
    """Say that nothing was heard since this update."""
    return ContactLost(parcel_id=update.parcel_id, sequence=update.sequence, position=update.position)
