"""What `choreo demo claims` does: claims are decided though a register fails now and then, and one of them is traced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

from choreo import Settings
from services.books import differences
from services.claims import registers, services
from services.claims.audit import findings, log_findings, outcome_of
from services.claims.events import ClaimFiled, Finding
from services.claims.registers import Registers
from services.claims.sample import claims
from services.demo import DemoResult
from services.evidence import Seen, events, in_causal_order
from services.trial import staged

TOPICS = ("claims.filed", "claims.decided", "claims.notices")


class Unreliable(Registers):
    """Registers that count who asks; pricing does not answer the first time for a third of the claims.

    Attributes:
        answered: how often each question of each claim was answered.
        failures: how often pricing was away.
    """

    def __init__(self) -> None:
        self.answered = Counter[tuple[str, str]]()
        self.failed: set[str] = set()

    async def eligibility(self, claim: ClaimFiled) -> Finding:
        """See `Registers.eligibility`."""
        self.answered[claim.claim_id, "eligibility"] += 1
        return await super().eligibility(claim)

    async def coverage(self, claim: ClaimFiled) -> Finding:
        """See `Registers.coverage`."""
        self.answered[claim.claim_id, "coverage"] += 1
        return await super().coverage(claim)

    async def pricing(self, claim: ClaimFiled, covered: Finding) -> Finding:
        """See `Registers.pricing`.

        Raises:
            ConnectionError: now and then.
        """
        if int(claim.claim_id[-1]) % 3 == 0 and claim.claim_id not in self.failed:
            self.failed.add(claim.claim_id)
            raise ConnectionError("the pricing engine does not answer")
        self.answered[claim.claim_id, "pricing"] += 1
        return await super().pricing(claim, covered)

    def findings(self, filed: Iterable[ClaimFiled]) -> list[str]:
        """What was asked too often or not at all: each stage that a claim came to must have answered once."""
        wanted = [(claim.claim_id, stage) for claim in filed for stage in outcome_of(claim).stages]
        return differences("answers on", self.answered, Counter(wanted))


async def run(settings: Settings, *, count: int = 100, seed: int = 7, duplicates: float = 0.05) -> DemoResult:
    """File claims and wait until each is decided, archived, reported and told.

    Raises:
        ChoreoError: the log cannot be used, or a service cannot go on.
    """
    filed = claims(seed, count)
    look = partial(findings, settings.store, filed)
    with asked() as systems:
        async with staged(services, settings) as stage:
            start = monotonic()
            twice = await stage.publish(filed, duplicates=duplicates, seed=seed)
            verdict = await stage.settle(look)
            seen = await events(stage.log, settings, TOPICS, stage.since)
            dropped, grown = stage.duplicates_dropped, await stage.grown()
    seconds, decisions = verdict.at - start, Counter(outcome_of(claim).decision for claim in filed)
    shown = next((claim for claim in filed if outcome_of(claim).payout), filed[0]).claim_id
    return DemoResult(
        title="Claims: decided in a fixed order, and whoever likes reacts to the decision",
        counts={
            "claims filed": count,
            "  paid": decisions["ClaimApproved"],
            "  denied": decisions["ClaimDenied"],
            "questions answered by the registers": systems.answered.total(),
            "times that pricing was away, and asked again": len(systems.failed),
            f"events in {seconds:.2f} s": grown,
            f"duplicates dropped ({twice:,} claims came twice)": dropped,
            **trail(seen, shown),
        },
        verdict="Every claim is decided once, and no register was asked again for what it had answered.",
        findings=verdict.findings or [*look(), *log_findings(seen, filed), *systems.findings(filed)],
        look=_commands(settings, seen, shown),
        data={
            "started": count,
            "decisions": dict(decisions),
            "answers": systems.answered.total(),
            "failures": len(systems.failed),
            "events": grown,
            "seconds": round(seconds, 3),
            "duplicates_published": twice,
            "duplicates_dropped": dropped,
        },
    )


@contextmanager
def asked() -> Iterator[Unreliable]:
    """The registers that services which begin in this block ask."""
    systems, before = Unreliable(), registers.connect
    registers.connect = lambda: systems
    try:
        yield systems
    finally:
        registers.connect = before


def trail(seen: Iterable[Seen], claim_id: str) -> dict[str, str]:
    """The events of one claim, each below its cause, and who published it."""
    saga = [each for each in seen if each.data["claim_id"] == claim_id]
    lines = {f"the trail of claim {claim_id}": ""}
    for depth, each in in_causal_order(saga):
        about = each.metadata
        lines[f"{'  ' * (depth + 1)}{about.type_name}, {each.at.topic}/{each.at.partition}@{each.offset}"] = (
            about.source
        )
    return lines


def _commands(settings: Settings, seen: Iterable[Seen], claim_id: str) -> dict[str, str]:
    saga = next((each.metadata.correlation_id for each in seen if each.data["claim_id"] == claim_id), "")
    store = settings.store_of("claims-archive", None)[10:]
    return {
        "that claim's events, word for word": f"choreo topics tail --saga {saga} --log {settings.log}",
        "who reacts to what, read from the services' own code": "choreo graph services.claims",
        "the archive": f"sqlite3 {store} 'SELECT saga, kind, body FROM documents LIMIT 4'",
    }
