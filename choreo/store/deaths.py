"""Which records earlier owners of a partition died of: what a new owner makes of its row in the store."""

from __future__ import annotations

import json
from typing import NamedTuple

from choreo.store import ranges
from choreo.store.port import Progress


class Owned(NamedTuple):
    """A partition's row as its new owner finds it.

    Attributes:
        owner: who has not given it back; empty if everybody did.
        suspect: the offset that this owner was about to handle alone.
        suspects: at which offsets earlier owners died, and how often, as JSON.
    """

    watermark: int
    done: str
    epoch: int
    owner: str
    deaths: int
    suspect: int | None
    suspects: str


def taken_over(found: Owned, by: str) -> Progress:
    """The progress of the next owner: one more death if another one never gave the partition back."""
    suspects = {int(offset): count for offset, count in json.loads(found.suspects).items()}
    died = found.owner not in {"", by}
    if died and found.suspect is not None:
        suspects[found.suspect] = suspects.get(found.suspect, 0) + 1
    open_suspects = {offset: count for offset, count in suspects.items() if offset >= found.watermark}
    return Progress(found.watermark, ranges.unpack(found.done), found.epoch + 1, found.deaths + died, open_suspects)
