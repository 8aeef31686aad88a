"""Files to try the ingestion with, and what must come of them: the same seed gives the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple

from services.books import differences, rows
from services.ingest.events import LARGE, FileArrived
from services.ingest.work import HEADER

TENANTS = ("ada", "alan", "barbara", "edsger", "grace")
HEAVY = "heavy"
COUNTRIES = ("NL", "DE", "FR", "se")


class Kind(StrEnum):
    """What a file is like."""

    USUAL = "usual"
    LARGE = "large"
    EMPTY = "empty"
    BAD_HEADER = "another header"
    BAD_ROW = "a row that is no sale"


class Sample(NamedTuple):
    """A file and what must be loaded of it."""

    arrived: FileArrived
    kind: Kind
    rows: int
    cents: int

    @property
    def is_good(self) -> bool:
        """Whether it is loaded."""
        return self.kind not in {Kind.BAD_HEADER, Kind.BAD_ROW}


def samples(seed: int, number: int, folder: Path, *, lines: int = 300) -> list[Sample]:
    """Write `number` files drawn from `seed` into a folder; large ones are those of a heavy tenant.

    Args:
        lines: about how many a usual file has.
    """
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    kinds, weights = list(Kind), (60, 8, 4, 10, 18)
    drawn = draw.choices(kinds, weights, k=number)
    return [_sample(draw, kind, f"f-{seed}-{place:04}", folder, lines) for place, kind in enumerate(drawn)]


def _sample(draw: Random, kind: Kind, name: str, folder: Path, lines: int) -> Sample:
    tenant = HEAVY if kind is Kind.LARGE else draw.choice(TENANTS)
    path, sizes = folder / f"{name}.csv", {Kind.EMPTY: 0, Kind.LARGE: LARGE // 24}
    number = sizes.get(kind, draw.randint(lines // 2, lines * 2))
    count, cents = write_file(path, draw, number)
    if kind is Kind.BAD_HEADER:
        path.write_text("an invoice\n" + path.read_text())
    elif kind is Kind.BAD_ROW:
        text = path.read_text().splitlines()
        text.insert(draw.randint(1, len(text)), "2026-02-30,lamp,NL,1,9.99")
        path.write_text("\n".join(text) + "\n")
    arrived = FileArrived(file_id=name, tenant=tenant, path=str(path), size=path.stat().st_size)
    return Sample(arrived, kind, count, cents)


def write_file(path: Path, draw: Random, number: int) -> tuple[int, int]:
    """Write a file of so many sales; returns their number and the cents that they sum up to."""
    total, lines = 0, [",".join(HEADER)]
    for _ in range(number):
        quantity, cents = draw.randint(1, 20), draw.randint(50, 99_999)
        total += quantity * cents
        article, country = draw.choice(("Lamp", "Desk", "Chair", " Shelf")), draw.choice(COUNTRIES)
        lines.append(f"2026-0{draw.randint(1, 9)}-{draw.randint(10, 28)},{article},{country},{quantity},{cents / 100}")
    path.write_text("\n".join(lines) + "\n")
    return number, total


def findings(stores: str, chosen: Sequence[Sample]) -> list[str]:
    """What the stores hold that is not as it must be once all these files have ended, one sentence each."""
    ended = {
        row[0]: tuple(row[1:]) for row in rows(stores, "ingest-books", "SELECT file_id, outcome, rows FROM outcomes")
    }
    loaded = {row[0]: tuple(row[1:]) for row in rows(stores, "ingest-load", _LOADED)}
    return [
        *differences("outcome of", ended, {one.arrived.file_id: _outcome(one) for one in chosen}),
        *differences(
            "rows and cents of",
            loaded,
            {one.arrived.file_id: (one.rows, one.cents) for one in chosen if one.is_good and one.rows},
        ),
        *_disorder(stores, chosen),
    ]


_LOADED = "SELECT file_id, count(*), sum(cents) FROM sales GROUP BY file_id"
_ORDER = "SELECT tenant, file_id FROM sales GROUP BY tenant, file_id ORDER BY tenant, min(rowid)"


def _outcome(sample: Sample) -> tuple[str, int]:
    return ("loaded", sample.rows) if sample.is_good else ("rejected", 0)


def _disorder(stores: str, chosen: Sequence[Sample]) -> list[str]:
    """Tenants whose files of usual size were not loaded in the order in which they came."""
    came: dict[str, list[str]] = {}
    for one in chosen:
        if one.kind is Kind.USUAL:
            came.setdefault(one.arrived.tenant, []).append(one.arrived.file_id)
    found: dict[str, list[str]] = {}
    for tenant, file in rows(stores, "ingest-load", _ORDER):
        found.setdefault(tenant, []).append(file)
    return [
        f"tenant {tenant}: loaded in the order {', '.join(order[:5])} …"
        for tenant, order in found.items()
        if tenant in came and order != [file for file in came[tenant] if file in order]
    ]
