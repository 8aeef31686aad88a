"""What `choreo demo delivery` does: parcels are planned and dispatched, their vehicles tell hundreds of positions, all arrive."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from choreo import Bus, Settings
from services.delivery import services
from services.delivery.audit import dispatch_findings, dispatched, findings, log_findings, refusal_of
from services.delivery.events import ParcelDispatched
from services.delivery.sample import parcels
from services.delivery.vehicle import radioed, updates
from services.demo import DemoResult
from services.evidence import events
from services.trial import staged

UPDATES = 200
TOPICS = ("delivery.routes", "delivery.dispatches", "delivery.tracking")
_AT_ONCE = 20


async def run(settings: Settings, *, count: int = 20, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """Book parcels, drive those that can be delivered, and wait until all are with their recipients.

    Args:
        duplicates: the share of parcels that are booked twice under one event id, and of positions that are told twice.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    booked = parcels(seed, count)
    look = partial(findings, settings.store, booked, UPDATES)
    async with staged(services, settings) as stage:
        start = monotonic()
        twice = await stage.publish(booked, duplicates=duplicates, seed=seed)
        verdict = await stage.settle(partial(dispatch_findings, settings.store, booked))
        seen = await events(stage.log, settings, TOPICS, stage.since)
        drives = [drive(stage.bus, parcel, seed, duplicates) for parcel in dispatched(seen)]
        told = sum(await asyncio.gather(*drives))
        if not verdict.findings:
            verdict = await stage.settle(look)
        seen = await events(stage.log, settings, TOPICS, stage.since)
        dropped, grown = stage.duplicates_dropped, await stage.grown()
    seconds, refused = verdict.at - start, sum(refusal_of(parcel) is not None for parcel in booked)
    store = settings.store_of("delivery-tracking", None)[10:]
    return DemoResult(
        title="Delivery: hundreds of positions in one saga, folded into one row",
        counts={
            "parcels booked": count,
            "  refused by a check": refused,
            "  delivered": count - refused,
            "positions told, in any order and some twice": told,
            f"events in {seconds:.2f} s": grown,
            f"duplicates dropped ({twice:,} parcels came twice)": dropped,
        },
        verdict="Every parcel that can be delivered is, once; its row holds its last position.",
        findings=verdict.findings or [*look(), *log_findings(seen, booked)],
        look={
            "the events as they lie in the log": f"choreo topics tail delivery.tracking --log {settings.log}",
            "who reacts to what, read from the services' own code": "choreo graph services.delivery",
            "where the parcels are": f"sqlite3 {store} 'SELECT * FROM parcels LIMIT 5'",
        },
        data={
            "started": count,
            "refused": refused,
            "updates": told,
            "events": grown,
            "seconds": round(seconds, 3),
            "duplicates_published": twice,
            "duplicates_dropped": dropped,
        },
    )


async def drive(bus: Bus, parcel: ParcelDispatched, seed: int, duplicates: float, number: int = UPDATES) -> int:
    """Tell so many positions of a parcel, the last one at the door; returns how many were told, copies included."""
    told = list(radioed(updates(parcel, number), seed, duplicates))
    for start in range(0, len(told), _AT_ONCE):
        some = told[start : start + _AT_ONCE]
        await asyncio.gather(*(bus.publish(update, correlation_id=parcel.tracking) for update in some))
    return len(told)
