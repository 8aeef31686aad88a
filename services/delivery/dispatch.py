"""Dispatch: gives a planned parcel to the vehicle of its depot that carries the least."""

from __future__ import annotations

from choreo import Context, Service
from services.delivery.events import ParcelDispatched, RoutePlanned
from services.delivery.planning import DEPOTS

VEHICLES_PER_DEPOT = 4
_FLEET = ",\n    ".join(
    f"('{depot}-{number}', '{depot}', 0)" for depot in DEPOTS for number in range(VEHICLES_PER_DEPOT)
)

TABLES = f"""
CREATE TABLE IF NOT EXISTS vehicles (vehicle TEXT PRIMARY KEY, depot TEXT NOT NULL, grams INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS loads (parcel_id TEXT NOT NULL, vehicle TEXT NOT NULL, grams INTEGER NOT NULL);
INSERT INTO vehicles VALUES
    {_FLEET}
ON CONFLICT DO NOTHING;
"""

dispatch = Service("delivery-dispatch", tables=TABLES)


@dispatch.on(RoutePlanned)
async def load(route: RoutePlanned, ctx: Context) -> ParcelDispatched:
    """Load it."""
    free = await ctx.db.fetch_one(
        "SELECT vehicle FROM vehicles WHERE depot = $1 ORDER BY grams, vehicle LIMIT 1", (route.depot,)
    )
    if free is None:
        raise LookupError(f"depot {route.depot} has no vehicle")
    (vehicle,) = free
    await ctx.db.execute("UPDATE vehicles SET grams = grams + $1 WHERE vehicle = $2", (route.grams, vehicle))
    await ctx.db.execute("INSERT INTO loads VALUES ($1, $2, $3)", (route.parcel_id, vehicle, route.grams))
    return ParcelDispatched(
        parcel_id=route.parcel_id,
        recipient=route.recipient,
        vehicle=vehicle,
        tracking=ctx.correlation_id,
        start=route.start,
        destination=route.destination,
    )
