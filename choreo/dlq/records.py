"""The records that resolve a dead letter: one for the service that failed, one that says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from choreo.choreography import dead_letter_topic
from choreo.dlq.letters import DeadLetter, Resolved
from choreo.log.port import NewRecord, Record
from choreo.runtime.parking import retry_record


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Who resolves dead letters, how, and why.

    Attributes:
        service: who is to handle dead letters of other systems; those of ours go to the service that failed.
    """

    kind: Resolved
    by: str
    why: str
    service: str = ""

    def service_of(self, letter: DeadLetter) -> str:
        """The one service that gets it back; empty if nobody said."""
        return letter.service or self.service

    def goes_back(self, letter: DeadLetter) -> bool:
        """Whether the service has to hear of it; not of a discarded one for which nothing can wait.

        What came back unreadable does not know whether its key waited before.
        """
        return self.kind == "redriven" or letter.parked or letter.redrives > 0


def resolving(letter: DeadLetter, original: Record, reason: Reason, now_ms: int, *, edited: bool) -> list[NewRecord]:
    """What to append in one transaction."""
    service, records = reason.service_of(letter), list[NewRecord]()
    both = {"by": reason.by, "why": reason.why} | ({"edited": "1"} if edited else {})
    if reason.goes_back(letter):
        told = {"count": str(letter.redrives + 1), "of": letter.id, **both}
        told |= {"discard": "1"} if reason.kind == "discarded" else {}
        more = [(f"choreo.redrive.{name}", text) for name, text in told.items()]
        first, handler = letter.first_failed_ms, letter.handler
        records.append(
            retry_record(service, original, handler=handler, attempt=0, due_ms=0, first_failed_ms=first, more=more)
        )
    told = {"resolves": letter.id, "failed-at": str(letter.failed_ms), "resolution": reason.kind, "at": str(now_ms)}
    headers = [(f"choreo.dlq.{name}", text.encode()) for name, text in (told | both).items()]
    return [*records, NewRecord(dead_letter_topic(service), letter.record.key, None, headers)]
