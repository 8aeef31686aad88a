"""A choreography made for checking: every effect leaves a row, nothing keeps a second one out, every event has its number.

    Placed -> intake.accept -> Charge -> pay.charge -> Paid -> ledger.book -> Booked -> sink.record
                            -> Pack -> pack.pack -> Packed -> sink.record
                                                  Paid -> ledger.notify (unordered, emits nothing)

`seq` counts the Placed of a key from 1 and goes down the tree unchanged, so each topic must show it growing. The event's
fate decides what a handler makes of it. With CHOREO_CHAOS_TRANSACTIONAL all but the sink are transactional services.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Literal

from choreo import Context, Event, Retry, Service

Fate = Literal["plain", "shaky", "long", "odd", "refused"]
"""plain; fails once, in place; fails until it has been to the retry topic; notify refuses it; pack refuses it."""

TRANSACTIONAL = bool(os.environ.get("CHOREO_CHAOS_TRANSACTIONAL"))
_IS_POSTGRES = os.environ.get("CHOREO_STORE", "").startswith("postgres")
_PAUSE = float(os.environ.get("CHOREO_CHAOS_PAUSE", "0.002"))
_MENDED = Path(os.environ.get("CHOREO_CHAOS_MENDED", "/nonexistent"))
_JOURNAL = os.environ.get("CHOREO_CHAOS_JOURNAL", "")

_ID = "BIGSERIAL PRIMARY KEY" if _IS_POSTGRES else "INTEGER PRIMARY KEY AUTOINCREMENT"
TABLES = f"""
CREATE TABLE IF NOT EXISTS effects (
    id {_ID}, event_id TEXT NOT NULL, handler TEXT NOT NULL, type TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""
_MARK = "%s" if _IS_POSTGRES else "?"
_INSERT = f"INSERT INTO effects (event_id, handler, type, key, seq) VALUES ({', '.join([_MARK] * 5)})"
_COUNT = f"INSERT INTO counters VALUES ({_MARK}, 1) ON CONFLICT (key) DO UPDATE SET n = counters.n + 1 RETURNING n"


class RefusedError(Exception):
    """No, and no again."""


class PassingError(Exception):
    """Not now."""


class Step(Event):
    key: str
    seq: int
    fate: Fate


class Placed(Step, topic="chaos.placed", key="key"): ...


class Charge(Step, topic="chaos.charge", key="key"): ...


class Pack(Step, topic="chaos.pack", key="key"): ...


class Paid(Step, topic="chaos.paid", key="key"): ...


class Booked(Step, topic="chaos.booked", key="key"):
    n: int
    """The store's own count of this key's bookings."""


class Packed(Step, topic="chaos.packed", key="key"): ...


def _service(name: str) -> Service:
    return Service(name, transactional=True) if TRANSACTIONAL else Service(name, tables=TABLES)


intake, pay, ledger, pack = (_service(name) for name in ("intake", "pay", "ledger", "pack"))
sink = Service("sink", tables=TABLES)
services = [intake, pay, ledger, pack, sink]

PATIENT = Retry(attempts=30, delay="30ms", max_delay="400ms", in_place="50ms", transient=(PassingError,))
FIRM = Retry(transient=(PassingError,), business=(RefusedError,))


def _fields(event: Step) -> dict[str, Any]:
    return {"key": event.key, "seq": event.seq, "fate": event.fate}


def _journal(line: str) -> None:
    with Path(_JOURNAL, str(os.getpid())).open("a") as journal:
        journal.write(f"{line}\n")


def _is_mended() -> bool:
    return _MENDED.exists()


async def _work(ctx: Context, handler: str) -> None:
    """What every handler does: takes its time; where calls are counted, it writes down that it was called."""
    if _JOURNAL:
        _journal(f"{handler} {ctx.event_id}")
    await asyncio.sleep(_PAUSE)


async def _note(event: Step, ctx: Context, handler: str) -> None:
    await ctx.db.execute(_INSERT, (ctx.event_id, handler, type(event).__name__, event.key, event.seq))


async def _did(event: Step, ctx: Context, handler: str) -> None:
    await _work(ctx, handler)
    if not TRANSACTIONAL:
        await _note(event, ctx, handler)


@intake.on(Placed)
async def accept(event: Placed, ctx: Context) -> list[Charge | Pack]:
    await _did(event, ctx, "accept")
    return [Charge(**_fields(event)), Pack(**_fields(event))]


@pay.on(Charge, retry=PATIENT)
async def charge(event: Charge, ctx: Context) -> Paid:
    if ctx.attempt <= {"shaky": 1, "long": 3}.get(event.fate, 0):
        raise PassingError
    await _did(event, ctx, "charge")
    return Paid(**_fields(event))


@ledger.on(Paid)
async def book(event: Paid, ctx: Context) -> Booked:
    await _did(event, ctx, "book")
    n = event.seq if TRANSACTIONAL else (await ctx.db.fetch_one(_COUNT, (event.key,)) or [0])[0]
    return Booked(**_fields(event), n=n)


@ledger.on(Paid, retry=FIRM, ordered=False)
async def notify(event: Paid, ctx: Context) -> None:
    if event.fate == "odd" and not _is_mended():
        raise RefusedError("nobody to notify")
    await _did(event, ctx, "notify")


@pack.on(Pack, retry=FIRM, name="pack")
async def pack_it(event: Pack, ctx: Context) -> Packed:
    if event.fate == "refused" and not _is_mended():
        raise RefusedError("no box is large enough")
    await _did(event, ctx, "pack")
    return Packed(**_fields(event))


@sink.on(Booked, Packed)
async def record(event: Booked | Packed, ctx: Context) -> None:
    await _work(ctx, "record")
    await _note(event, ctx, "record")


class Reaction:
    """What is expected of one handler for one event."""

    def __init__(self, service: str, handler: str, emits: tuple[str, ...], *, ordered: bool = True) -> None:
        self.service, self.handler, self.emits, self.ordered = service, handler, emits, ordered


REACTIONS: dict[str, list[Reaction]] = {
    "Placed": [Reaction("intake", "accept", ("Charge", "Pack"))],
    "Charge": [Reaction("pay", "charge", ("Paid",))],
    "Paid": [Reaction("ledger", "book", ("Booked",)), Reaction("ledger", "notify", (), ordered=False)],
    "Pack": [Reaction("pack", "pack", ("Packed",))],
    "Booked": [Reaction("sink", "record", ())],
    "Packed": [Reaction("sink", "record", ())],
}
"""The whole tree, said a second time, so that the services' code cannot hide its own mistakes."""

REFUSALS = {("notify", "odd"), ("pack", "refused")}
"""(handler, fate) that end as dead letters."""
