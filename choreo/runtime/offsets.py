"""Which offset of a partition is safe: the watermark and the holes above it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class OffsetTracker:
    """Follows the records of one partition from delivery to completion, in any order of completion.

    Args:
        watermark: every offset below it is done; -1 when nothing is known, the first delivery then decides.
        done: offsets at or above the watermark that are done too, as the store remembers them.

    Attributes:
        open: how many delivered records are not done.
    """

    __slots__ = ("_done", "_next", "_pending", "open")

    def __init__(self, watermark: int = -1, done: Iterable[int] = ()) -> None:
        self._next = watermark
        self._pending: deque[int] = deque()  # delivered, at or above the watermark, ascending
        self._done = set(done)
        self.open = 0

    def deliver(self, offset: int) -> bool:
        """Take in a record; False if it is done already. Offsets come ascending, with gaps."""
        if offset < self._next:
            return False
        self._next = offset + 1
        self._pending.append(offset)
        if offset in self._done:
            self._advance()
            return False
        self.open += 1
        return True

    def skip(self, offset: int) -> bool:
        """Nothing is to be delivered below this offset any more; says whether that moves the watermark."""
        if offset <= self._next or self._pending:
            return False
        self._next = offset
        return True

    def finish(self, offset: int) -> None:
        """A delivered record is done."""
        self._done.add(offset)
        self.open -= 1
        self._advance()

    def _advance(self) -> None:
        pending, done = self._pending, self._done
        while pending and pending[0] in done:
            done.discard(pending.popleft())

    @property
    def reach(self) -> int:
        """How many offsets lie between the watermark and what is to be delivered next."""
        return self._next - self._pending[0] if self._pending else 0

    @property
    def watermark(self) -> int:
        """Every record below it is done."""
        return self._pending[0] if self._pending else self._next

    @property
    def done(self) -> tuple[int, ...]:
        """What is done at or above the watermark, ascending."""
        watermark = self.watermark
        return tuple(sorted(offset for offset in self._done if offset >= watermark))
