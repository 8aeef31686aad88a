"""What a saga, made of records by whatever way, says differently from the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from choreo.log.port import Record
from choreo.saga.model import Saga
from choreo.saga.reading import sight
from choreo.saga.sighting import Letter, Settled, Sighting
from tests.tracker.truth import Truth


def differences(truth: Truth, saga: Saga) -> list[str]:
    """Where a saga is not as it is in truth; empty if it is."""
    found = []
    if saga.state != truth.state:
        found.append(f"state: {saga.state}, in truth {truth.state}; {saga.reason}")
    elif not truth.reason.search(saga.reason):
        found.append(f"reason of {saga.state}: {saga.reason!r}, in truth {truth.reason.pattern!r}")
    if truth.loses_start:  # what the first event was to lead to, nobody can know
        return found
    expected = {(each.what, each.handler) for each in saga.expected}
    if expected != truth.expected:
        found.append(f"expected: too much {expected - truth.expected}, too little {truth.expected - expected}")
    ledger = {line.event: (line.compensation, line.status) for line in saga.ledger}
    if ledger != truth.ledger:
        wrong = {name for name in ledger.keys() | truth.ledger.keys() if ledger.get(name) != truth.ledger.get(name)}
        found += [f"ledger of {name}: {ledger.get(name)}, in truth {truth.ledger.get(name)}" for name in sorted(wrong)]
    return found


def sightings(records: Iterable[Record]) -> dict[str, list[Sighting]]:
    """What is kept of records, by saga."""
    found: dict[str, list[Sighting]] = defaultdict(list)
    letters: dict[str, str] = {}
    settled = []
    for record in records:
        seen = sight(record)
        if seen is None:
            continue
        if isinstance(seen.said, Settled):
            settled.append((seen.said.of, seen))
            continue
        if isinstance(seen.said, Letter):
            letters[seen.said.id] = seen.saga
        found[seen.saga].append(seen)
    for of, seen in settled:
        if of in letters:
            found[letters[of]].append(seen)
    return found
