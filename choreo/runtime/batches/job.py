"""The jobs of a batch: all of it as it waits in its lane, and the parts in which it is handled."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from choreo.handler import Batch, Handler
from choreo.log.port import Record, TopicPartition
from choreo.runtime.deadletter import Stage
from choreo.runtime.partitions import Failing, Job, Task
from choreo.runtime.retry import Decision
from choreo.runtime.unit import UnitOfWork


def group_of(at: TopicPartition, handler: Handler, record: Record) -> Hashable:
    """The lane of the batches that this record may be in."""
    rule = handler.rule
    if isinstance(rule, Batch) and rule.per == "key":
        return (at, handler.name, record.key)
    return (at, handler.name)


class Part(Job):
    """Records that are handled in one call; to circuit breaker and logs it is its first record.

    Attributes:
        members: their jobs, in order.
    """

    __slots__ = ("_composition", "members")

    def __init__(self, members: Sequence[Job], failing: Failing | None = None) -> None:
        first = members[0]
        self._composition = ""
        super().__init__(first.partition, first.record, first.metadata, first.event, first.tasks, first.lane)
        self.offset = first.offset
        self.members = members
        self.recheck = any(member.recheck for member in members)
        if failing is not None:
            self.failing = {self.handler.name: failing}

    @property
    def handler(self) -> Handler:
        """Whom the records came for."""
        return self.tasks[0].handler

    @property
    def composition(self) -> str:
        """The same for the same events in the same order."""
        if not self._composition:
            ids = "\0".join(f"{member.metadata.source}\0{member.metadata.event_id}" for member in self.members)
            self._composition = blake2b(ids.encode(), digest_size=16).hexdigest()
        return self._composition

    def failures(self, now_ms: int) -> Failing:
        """What is known of its failed calls; from now on there is at least one."""
        if self.failing is None:
            self.failing = {self.handler.name: Failing(0, now_ms)}
        return self.failing[self.handler.name]

    def halves(self) -> tuple[Part, Part]:
        """Two parts; the calls that failed were theirs too."""
        middle = len(self.members) // 2
        return self._of(self.members[:middle]), self._of(self.members[middle:])

    def _of(self, members: Sequence[Job]) -> Part:
        known = self.failing[self.handler.name] if self.failing else None
        return Part(members, _copy(known) if known else None)


def _copy(known: Failing) -> Failing:
    made = Failing(known.attempts, known.first_ms)
    made.calls = known.calls
    return made


class Suspect(NamedTuple):
    """A record that has failed for good by itself. What becomes of it waits until it is known whether others do better.

    Attributes:
        part: it alone.
        error, stage: why.
        decision: what becomes of it.
    """

    part: Part
    error: BaseException
    stage: Stage
    decision: Decision


class BatchJob(Job):
    """A batch: one job of its lane. It grows until it is called; then it is worked off part by part.

    Its `offset` and `tasks` mean something at the end only: they are then those of its last record, which the worker
    finishes as it does that of any job.

    Attributes:
        members: what was gathered; None once it is divided into parts.
        unfinished: how many of its records are not done.
        due_ms: when it is called though it is not full.
        parts: what is left of it, in order.
        copies: records whose event another one of the batch has, in order.
        suspects: records that have failed since the last call that did well, in order; they come before all parts.
        waited: whether it has waited, so that others could show whether there is an outage.
    """

    __slots__ = ("copies", "due_ms", "members", "parts", "suspects", "unfinished", "waited")

    def __init__(self, first: Job, lane: Hashable, due_ms: int = 0) -> None:
        super().__init__(first.partition, first.record, first.metadata, first.event, (), lane)
        self.left = (Task(first.tasks[0].handler, b""),)
        self.due_ms = due_ms
        self.members: list[Job] | None = [first]
        self.unfinished = 1
        self.parts: deque[Part] = deque()
        self.copies: list[Job] = []
        self.suspects: list[Suspect] = []
        self.waited = False

    def add(self, job: Job) -> None:
        """One record more."""
        assert self.members is not None  # noqa: S101 - only what has not been called grows
        self.members.append(job)
        self.unfinished += 1

    @property
    def rest(self) -> list[Job]:
        """The records that are not done, in order, copies at the end."""
        parts = (*(suspect.part for suspect in self.suspects), *self.parts)
        return [*(self.members or ()), *(member for part in parts for member in part.members), *self.copies]

    def part(self) -> Part | None:
        """What is to be called next; None if nothing is left."""
        if self.members is not None:
            self.parts.append(Part(self.members))
            self.members = None
        if not self.parts and self.copies:
            self.parts.append(Part(self.copies))
            self.copies = []
        return self.parts[0] if self.parts else None

    def split(self) -> None:
        """Handle the next part's halves by themselves."""
        self.parts.extendleft(reversed(self.parts.popleft().halves()))

    def suspect(self, error: BaseException, stage: Stage, decision: Decision) -> None:
        """The next part is one record, and fails."""
        self.suspects.append(Suspect(self.parts.popleft(), error, stage, decision))

    def start_over(self) -> None:
        """Make one part of all that is left."""
        parts = [*(suspect.part for suspect in self.suspects), *self.parts]
        known = [part.failures(0) for part in parts if part.failing]
        failing = None
        if known:
            failing = Failing(max(one.attempts for one in known), min(one.first_ms for one in known))
            failing.calls = max(one.calls for one in known)
        self.suspects.clear()
        self.parts = deque([Part([member for part in parts for member in part.members], failing)])

    def end(self, unit: UnitOfWork, members: Iterable[Job]) -> None:
        """These records are done, whatever came of them."""
        for member in members:
            self.unfinished -= 1
            if self.unfinished:
                unit.finish(self.partition, member.offset, member.tasks)
            else:
                self.offset, self.tasks = member.offset, member.tasks


def records_in(jobs: Iterable[Job]) -> int:
    """How many records these jobs are."""
    return sum(job.unfinished if isinstance(job, BatchJob) else 1 for job in jobs)


def singles(jobs: Iterable[Job]) -> list[Job]:
    """These jobs, batches as the jobs of their records that are not done."""
    return [one for job in jobs for one in (job.rest if isinstance(job, BatchJob) else (job,))]
