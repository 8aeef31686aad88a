"""What becomes of a record at which a handler failed: another attempt, the retry topic, a failure event, the dead letters."""

from __future__ import annotations

import math

import structlog

from choreo.durations import seconds
from choreo.errors import ChoreoError, UndeclaredEmissionError
from choreo.handler import Compensation, Handler
from choreo.log.port import NewRecord, TopicPartition
from choreo.retry import Retry
from choreo.runtime.breaker import Breakers
from choreo.runtime.clock import Clock
from choreo.runtime.deadletter import Failed, LetterKind, Stage, dead_letter, said, size_of
from choreo.runtime.emit import Emitter
from choreo.runtime.parking import lane_of, retry_record
from choreo.runtime.partitions import AbandonedError, Failing, Job, Task, identity
from choreo.runtime.retry import Again, Decision, Declare, Far, GiveUp, Kind, Later, decide, kind_of
from choreo.runtime.sagas.turn import Turn
from choreo.runtime.session import Session
from choreo.runtime.stats import Stats
from choreo.runtime.unit import UnitOfWork
from choreo.store.port import Park

_log = structlog.get_logger("choreo.runtime")
HELD = math.inf
"""The wait of a record that a circuit breaker holds: until its lane is resumed."""


class Failures:
    """Judges failed calls of one service instance's handlers.

    Args:
        transactional: whether the service has no store, hence neither retry topic nor parked keys.
    """

    def __init__(
        self, *, unit: UnitOfWork, clock: Clock, stats: Stats, emitter: Emitter, breakers: Breakers, transactional: bool
    ) -> None:
        self._unit = unit
        self._clock = clock
        self._stats = stats
        self._emitter = emitter
        self._breakers = breakers
        self._transactional = transactional

    async def judge(self, job: Job, task: Task, error: BaseException, session: Session) -> float | None:
        """Decide, and do it; returns the seconds until the next attempt, or None if the handler is done with this record.

        Raises:
            AbandonedError: the partition has gone; nothing was done.
        """
        handler, stage = task.handler, session.stage
        retry = handler.retry
        kind = kind_of_fault(retry, error, session)
        if job.partition.gone:
            raise AbandonedError
        now_ms = self._clock.now_ms()
        job.failing = job.failing or {}
        failing = job.failing.setdefault(handler.name, Failing(0, now_ms))
        failing.calls += 1
        if kind == "business":
            self._breakers.succeeded(job, handler)
        elif self._breakers.failed(job, handler, again=failing.calls > 1) and (
            now_ms - failing.first_ms <= seconds(retry.within) * 1000  # not even an outage keeps a record for ever
        ):
            return HELD
        failing.attempts += 1
        decision = decide(
            retry, error, kind, attempt=failing.attempts, first_ms=failing.first_ms, now_ms=now_ms,
            chance=self._clock.random(), far=self._far(job),
        )  # fmt: skip
        if isinstance(decision, Declare):
            try:
                calls = session.turn.calls if session.turn is not None else ()
                scope = calls[0].scope if calls else ""
                records = self._emitter.failure(job, handler, decision.failure(job.event, error), scope)
            except Exception as wrong:  # noqa: BLE001 - it is the user's function
                wrong.__context__ = None if wrong is error else error
                error, stage, decision = wrong, "emit", GiveUp("fatal")
            else:
                return self._declare(job, task, records, error, session)
        decision = self._apart(job, handler, decision, now_ms)
        return await self.carry_out(job, task, error, stage, failing, decision, session.turn)

    def _far(self, job: Job) -> Far:
        if self._transactional:
            return "lane"
        return "never" if job.back is not None and job.back.said is not None and job.back.said.redrives else "topic"

    def _apart(self, job: Job, handler: Handler, decision: Decision, now_ms: int) -> Decision:
        """A handler that needs no order waits elsewhere if other handlers need the order of this lane."""
        shared = job.record.key is not None and job.lane == (job.partition.at, job.record.key)
        if isinstance(decision, Again) and decision.delay and shared and not (handler.ordered or self._transactional):
            return Later(now_ms + round(decision.delay * 1000))
        return decision

    async def carry_out(
        self,
        job: Job,
        task: Task,
        error: BaseException,
        stage: Stage,
        failing: Failing,
        decision: Decision,
        turn: Turn | None = None,
    ) -> float | None:
        """Do what was decided; returns the seconds until the next attempt, or None if the handler is done with it."""
        handler = task.handler
        about = {
            **identity(job, handler),
            "attempt": failing.calls,
            "error": f"{type(error).__name__}: {said(error)}",
        }
        if isinstance(decision, Again):
            self._stats.retry(handler.name, "lane")
            _log.warning("handler failed, trying again", **about, delay=round(decision.delay, 3))
            return decision.delay
        if isinstance(decision, Later):
            record = retry_record(
                handler.service, job.record, handler=handler.name, attempt=failing.attempts, due_ms=decision.due_ms,
                first_failed_ms=self._first_failed_ms(job, failing),
            )  # fmt: skip
            if size_of(record.key, record.value, record.headers) <= self._emitter.max_record_bytes:
                self._stats.retry(handler.name, "topic")
                self._send_away(job, task)
                self._unit.add(job.partition, job.offset, [record])
                _log.warning("handler failed, trying again through the retry topic", **about, due_ms=decision.due_ms)
                return None
            decision = GiveUp("exhausted")
        kind = _kind_of_letter(handler, error, decision)
        await self._bury(job, task, error, stage, kind, failing)
        if turn is not None:
            turn.bury()
        about["attempts"] = about.pop("attempt")
        trace = error if not isinstance(error, ChoreoError) else None
        if kind == "compensation":
            _log.critical(
                "compensation gave up: what its step did is not undone until the dead letter is redriven",
                **about, stage=stage, kind=kind, exc_info=trace,
            )  # fmt: skip
        else:
            _log.error(
                "handler gave up, record goes to the dead letters", **about, stage=stage, kind=kind, exc_info=trace
            )
        return None

    def _declare(
        self, job: Job, task: Task, records: list[NewRecord], error: BaseException, session: Session
    ) -> float | None:
        turn = session.turn
        if self._unit.is_pending(task.inbox_key):
            self._stats.duplicates += 1
            return None
        if turn is not None and not turn.holds():
            return 0.0
        more = turn is not None and turn.more
        if not self._unit.add(job.partition, job.offset, records, None if more else task.inbox_key or None):
            raise AbandonedError
        if turn is not None:
            turn.conclude(())
        if session.remembered is not None:
            self._unit.forget_notes(session.remembered)
        self._stats.handled += 1
        self._stats.emitted += len(records)
        if (trace := job.trace(task.handler)) is not None:
            trace.error = None
        _log.info("business error declared as a failure", **identity(job, task.handler), error=said(error))
        if not more:
            return None
        if job.failing is not None:
            job.failing.pop(task.handler.name, None)  # they were calls of this turn
        return 0.0

    async def _bury(
        self, job: Job, task: Task, error: BaseException, stage: Stage, kind: LetterKind, failing: Failing
    ) -> None:
        handler, told = task.handler, job.back.said if job.back else None
        waits = self._parks(job, handler)
        if waits and told:
            lane = lane_of(handler.name, job.record.topic, job.record.key or b"")
            waits = await self._unit.store.behind(lane, 0, job.metadata.event_id) is not None
            if job.partition.gone:
                raise AbandonedError
        failed = Failed(
            service=handler.service, handler=handler.name, stage=stage, kind=kind, error=error,
            attempts=failing.calls, first_failed_ms=self._first_failed_ms(job, failing), now_ms=self._clock.now_ms(),
            subject=_subject(job), redrives=told.redrives if told else 0, parked=waits,
        )  # fmt: skip
        self._send_away(job, task)
        self._unit.add(job.partition, job.offset, [dead_letter(job.record, failed, self._emitter.max_record_bytes)])
        self._stats.bury(handler.name, kind)

    def _first_failed_ms(self, job: Job, failing: Failing) -> int:
        return job.back.said.first_failed_ms if job.back and job.back.said else failing.first_ms

    def _parks(self, job: Job, handler: Handler) -> bool:
        return handler.ordered and job.record.key is not None and not self._transactional

    def _send_away(self, job: Job, task: Task) -> None:
        """The record goes elsewhere: what comes later for its key waits, if it does not already."""
        handler, record, back = task.handler, job.record, job.back
        self._unit.forget_key(task.inbox_key)
        if job.timer is not None:
            self._unit.unset(job.timer.timer_id)
        if back is not None:
            back.ended.remove(handler.name)
        if (back is None or back.said is None) and self._parks(job, handler):
            key = record.key or b""
            at = TopicPartition(record.topic, record.partition)
            self._unit.park(
                Park(lane_of(handler.name, record.topic, key), at, job.metadata.event_id, handler.name, key)
            )


def kind_of_fault(retry: Retry, error: BaseException, session: Session) -> Kind:
    """Of what kind an error is that a call ended with."""
    if session.stage == "emit":
        return "fatal"
    return kind_of(retry, error, unnamed="transient" if session.ended else "fatal")


def _kind_of_letter(handler: Handler, error: BaseException, decision: Decision) -> LetterKind:
    if isinstance(handler.rule, Compensation):
        return "compensation"
    if isinstance(error, UndeclaredEmissionError):
        return "undeclared"
    return decision.kind if isinstance(decision, GiveUp) else "exhausted"


def _subject(job: Job) -> str:
    """What a dead letter is about: the same in each copy, another for each call that a timer let happen."""
    due = f"\0{job.timer.due_ms}" if job.timer is not None else ""
    return f"{job.metadata.source}\0{job.metadata.event_id}{due}"
