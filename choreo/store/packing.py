"""Many rows as few parameters: that spares client and server most of the work of one statement per row. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, groupby
from operator import itemgetter

from choreo.store.port import NewNote, Timer


def end_to_end(contents: Sequence[bytes]) -> tuple[bytes, list[tuple[int, int]]]:
    """All as one value, and where in it each is: its first byte, counted from 1 as SQL does, and its length."""
    lengths = list(map(len, contents))
    return b"".join(contents), list(zip(accumulate(lengths, initial=1), lengths, strict=False))


def each(rows: Collection[object]) -> str:
    """An array with an element for each: what `json_each` counts."""
    return str([0] * len(rows))


def of_keys(notes: Iterable[NewNote]) -> list[NewNote]:
    """The notes by key, each key's in their own order: instances that write the same keys at once wait for each other in a row."""
    return sorted(notes, key=itemgetter(0))


def in_runs(notes: Sequence[NewNote]) -> tuple[list[NewNote], list[tuple[int, str, int, int]]]:
    """The notes by number, kind and time, and the runs that have these in common: each with how many they are."""
    _, written, keeps, _ = zip(*notes, strict=True)
    numbers, kinds, _ = zip(*written, strict=True)
    about = list(zip(numbers, kinds, keeps, strict=True))
    order = sorted(range(len(about)), key=about.__getitem__)
    runs = [(*run, len(list(those))) for run, those in groupby(map(about.__getitem__, order))]
    return [notes[place] for place in order], runs


def alone(notes: Sequence[NewNote]) -> list[tuple[int, NewNote]]:
    """The notes that take the place of earlier ones, with their places among all."""
    return [(place, new) for place, new in enumerate(notes) if new.alone and new.note.number]


def highest(notes: Sequence[NewNote]) -> list[tuple[int, int]]:
    """The highest number of each key, with the place of its note among all."""
    found = {key: (place, note[0]) for place, (key, note, _, _) in enumerate(notes)}
    return list(found.values())


def latest(timers: Iterable[Timer]) -> list[Timer]:
    """The timers by id, of each id the last: no statement writes a row twice."""
    return sorted({timer.timer_id: timer for timer in timers}.values(), key=lambda timer: timer.timer_id)
