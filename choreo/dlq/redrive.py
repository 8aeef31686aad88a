"""Dead letters of a log: read, given back to the service that failed, discarded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from choreo.choreography import dead_letter_topic, retry_topic
from choreo.dlq.fold import Fold, Selection
from choreo.dlq.letters import DeadLetter, Place
from choreo.dlq.records import Reason, resolving
from choreo.errors import ChoreoError, LogUnavailableError, RecordTooLargeError, UnknownTopicError
from choreo.log.port import Log, NewRecord, Record
from choreo.log.reader import Reader, partitions_of, record_at

_CHUNK = 100
_LOOK = 0.2
_SETTLE = 1.0
"""Seconds from the group's offset to the dead letter that the same transaction put into the outbox."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How carefully to go.

    Attributes:
        canary: so many go first (of each service), and the others only if none of these failed again; 0: no such wait.
        rate: at most so many a second.
        max_failures: stop when more than this share of what went has failed again; unless given, outcomes of others
            than the canary are not waited for.
        wait: seconds after which an outcome counts as unknown, which stops too.
    """

    canary: int = 0
    rate: float | None = None
    max_failures: float | None = None
    wait: float = 60.0


@dataclass(kw_only=True)
class Report:
    """What has been done so far.

    Attributes:
        resolved: how many were redriven or discarded now.
        passed_over: how many of those selected were resolved before.
        failed_again: how many are known to have come back.
        left: how many are still to go.
        refused: why others cannot go, by id.
        stopped: why it ended early; empty if it did not.
    """

    resolved: int = 0
    passed_over: int = 0
    failed_again: int = 0
    left: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    stopped: str = ""


class DeadLetters:
    """The dead letters of some topics, as they were at the last `refresh`. Made by `dead_letters`."""

    def __init__(self, log: Log, fold: Fold, reader: Reader | None, topics: Collection[str]) -> None:
        self.fold = fold
        self._log, self._reader, self._topics = log, reader, topics

    async def refresh(self) -> None:
        """Read on to the end."""
        if self._reader is not None:
            async for record in self._reader.catch_up():
                self.fold.add(record)

    def select(self, chosen: Selection) -> list[DeadLetter]:
        """See `Fold.select`; of the topics that were asked for."""
        return [letter for letter in self.fold.select(chosen) if letter.at.topic in self._topics]

    async def resolve(
        self, chosen: Selection, reason: Reason, pace: Pace | None = None, edited: Mapping[str, Record] | None = None
    ) -> AsyncGenerator[Report, None]:
        """Redrive or discard those selected that are open, with a report after each step.

        Every step is one transaction, so it may be ended anywhere and run again: what is resolved is passed over.
        Of two that run at once for one service, the later one fences the earlier.

        Args:
            edited: by id, what goes instead of the original.

        Raises:
            ChoreoError: nobody said which service handles another system's dead letter.
            UnknownTopicError: the service has no retry topic.
            NotOwnerError: another one has begun to resolve dead letters of this service.
        """
        by_service = dict[str, list[DeadLetter]]()
        for letter in self.select(replace(chosen, state=None)):
            by_service.setdefault(reason.service_of(letter), []).append(letter)
        if "" in by_service:
            what = f"dead letter {by_service[''][0].id} is another system's"
            raise ChoreoError(what, remedy="name the service that shall handle it: --service NAME")
        report = Report(left=sum(map(len, by_service.values())))
        for service, letters in by_service.items():
            if mine := self._open(letters):
                async with _Sender(self._log, service, reason, edited or {}) as sender:
                    await self.refresh()  # only now nobody else resolves any of them
                    mine = self._open(letters)
                    async for _ in self._send(sender, mine, pace or Pace(), report):
                        yield report
            report.passed_over += len(letters) - len(mine)
            report.left -= len(letters) - len(mine)
            if report.stopped:
                break
        yield report

    def _open(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        return [letter for letter in letters if self.fold.state(letter) == "open"]

    async def _send(
        self, sender: _Sender, letters: list[DeadLetter], pace: Pace, report: Report
    ) -> AsyncIterator[None]:
        await sender.prepare(letters)
        size, at, gone = min(_CHUNK, max(1, int(pace.rate or _CHUNK))), 0, 0
        while at < len(letters):
            canary = gone < pace.canary
            step = letters[at : at + (min(size, pace.canary - gone) if canary else size)]
            begun, at = time.monotonic(), at + len(step)
            sent = await sender.send(step, report.refused)
            report.resolved, report.left, gone = report.resolved + len(sent), report.left - len(step), gone + len(sent)
            yield
            if sender.reason.kind == "redriven" and (canary or pace.max_failures is not None):
                await self._judge(sender, sent, pace, report)
                if report.stopped:
                    return
            if pace.rate and at < len(letters):
                await asyncio.sleep(begun + len(step) / pace.rate - time.monotonic())

    async def _judge(self, sender: _Sender, sent: list[DeadLetter], pace: Pace, report: Report) -> None:
        """Wait for the outcome of what was sent; stop if too much of it failed again."""
        if not await sender.handled(sent, pace.wait):
            report.stopped = f"the outcome is unknown after {pace.wait:g} s: does service {sender.service} run?"
            return
        await self.refresh()
        report.failed_again += sum(self.fold.failed_again(letter) for letter in sent)
        if report.failed_again > (pace.max_failures or 0) * report.resolved:
            report.stopped = f"{report.failed_again} of {report.resolved} failed again"


class _Sender:
    """Appends for one service; while it is open, nobody else resolves dead letters of this service."""

    def __init__(self, log: Log, service: str, reason: Reason, edited: Mapping[str, Record]) -> None:
        self.service, self.reason = service, reason
        self._log, self._edited = log, edited
        self._producer = log.producer(transactional_id=f"choreo-dlq-{service}")
        self._open = AsyncExitStack()
        self._open.push_async_callback(self._producer.close)
        self._arrivals: Reader | None = None
        self._places: dict[bytes, Place] = {}

    async def __aenter__(self) -> Self:
        await self._producer.append_atomically([])  # claims the transactional id
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def prepare(self, letters: Iterable[DeadLetter]) -> None:
        """Look where the retry topic ends now: what is sent will lie behind that."""
        if not any(map(self.reason.goes_back, letters)):
            return
        try:
            partitions = await partitions_of(self._log, [retry_topic(self.service)])
        except UnknownTopicError as error:
            why = f"service {self.service} has no retry topic: it has no store, or has not run yet"
            raise UnknownTopicError(f"topic {retry_topic(self.service)} does not exist", why=why) from error
        arrivals = Reader(self._log, await self._log.end_offsets(partitions))
        self._arrivals = await self._open.enter_async_context(arrivals)

    async def send(self, letters: Sequence[DeadLetter], refused: dict[str, str]) -> list[DeadLetter]:
        """Append what resolves these, all or nothing; returns those that could go."""
        going = list[DeadLetter]()
        records = list[NewRecord]()
        for letter in letters:
            try:
                record = self._edited.get(letter.id) or await self._record(letter)
            except ChoreoError as error:
                refused[letter.id] = str(error)
                continue
            now_ms = time.time_ns() // 1_000_000
            records += resolving(letter, record, self.reason, now_ms, edited=letter.id in self._edited)
            going.append(letter)
        try:
            try:
                await self._producer.append_atomically(records)
            except LogUnavailableError:  # nothing of it was appended; a failed transaction may spoil the next one, too
                await self._producer.append_atomically(records)
        except RecordTooLargeError as error:  # by one of them; it must not be in the way of the others
            if len(going) > 1:
                return [sent for letter in going for sent in await self.send([letter], refused)]
            refused[going[0].id] = str(error)
            return []
        return going

    async def _record(self, letter: DeadLetter) -> Record:
        if not self.reason.goes_back(letter):
            return letter.record
        try:
            return await original(self._log, letter)
        except ChoreoError:
            if self.reason.kind == "discarded" and letter.missing == ("value",):
                return letter.record  # its key can be released without it
            raise

    async def handled(self, letters: Sequence[DeadLetter], wait: float) -> bool:
        """Wait until the service has finished with these; False if it takes longer than `wait` seconds."""
        until = time.monotonic() + wait
        while self._arrivals is not None:
            async for record in self._arrivals.catch_up():
                self._places[dict(record.headers).get("choreo.redrive.of", b"")] = Place(*record[:3])
            lying = [self._places[id_] for letter in letters if (id_ := letter.id.encode()) in self._places]
            done = await self._log.committed(self.service, {place.of for place in lying})
            passed = [place for place in lying if place.of in done and done[place.of].offset > place.offset]
            if len(passed) == len(letters):
                await asyncio.sleep(_SETTLE)
                return True
            if time.monotonic() > until:
                break
            await asyncio.sleep(_LOOK)
        return False


@asynccontextmanager
async def dead_letters(
    log: Log, *, topics: Sequence[str] = (), service: str | None = None, values_of: Selection | None = None
) -> AsyncIterator[DeadLetters]:
    """The dead letters of a log, read to the end.

    Args:
        topics: topics of other systems; unless given, those of choreo's services (`dlq.*`), or of this `service`.
        values_of: whose values are kept, which needs memory; `show` and `resolve` need them.

    Raises:
        UnknownTopicError: one of the topics does not exist.
    """
    own = [name for name in await log.topics() if name.startswith("dlq.")]
    wanted = list(topics) or [name for name in own if service is None or name == dead_letter_topic(service)]
    read = {*wanted, *own} if topics else wanted  # what was done about them lies in the services' topics
    async with AsyncExitStack() as opened:
        starts = await log.beginning_offsets(await partitions_of(log, sorted(read)))
        reader = await opened.enter_async_context(Reader(log, starts)) if starts else None
        found = DeadLetters(log, Fold(values_of.fits if values_of is not None else lambda _: False), reader, wanted)
        await found.refresh()
        yield found


async def original(log: Log, letter: DeadLetter) -> Record:
    """The record as it was; what its dead letter has not is read where the original lies.

    Raises:
        ChoreoError: the original is gone.
    """
    if not letter.missing:
        return letter.record
    place = letter.place
    record = await record_at(log, place.of, place.offset)
    if record is not None and ("key" in letter.missing or record.key == letter.record.key):
        return record
    why = f"its {' and '.join(letter.missing)} is not in the dead letter, and the original at {place} is gone"
    raise ChoreoError(f"dead letter {letter.id} cannot be had", why=why)
