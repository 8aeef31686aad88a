"""Claims, on every log: the strict part in its order and never twice, the loose part with no power over it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from choreo.testing import running
from services.claims import demo, services
from services.claims.adjudication import adjudicate, adjudication
from services.claims.archive import archive
from services.claims.audit import STAGES, decisions_findings, findings, log_findings, outcome_of
from services.claims.demo import TOPICS, asked
from services.claims.events import ClaimantNotified, ClaimApproved, ClaimDenied
from services.claims.notices import notices
from services.claims.reporting import reporting
from services.claims.sample import claims
from services.trial import publish
from tests.services.flow_processes import deaths, in_processes, settings_at

CLAIMS = claims(7, 40)
PAID = next(claim for claim in CLAIMS if outcome_of(claim).payout)
LOOSE = [archive, reporting, notices]


def decided(world) -> dict[str, tuple[str, ...]]:
    """What was decided on each claim, and the stages that it came to."""
    given = [*world.emitted(ClaimApproved), *world.emitted(ClaimDenied)]
    assert len(given) == len({one.claim_id for one in given}), "each once"
    return {one.claim_id: (type(one).__name__, *(finding.stage for finding in one.findings)) for one in given}


WANTED = {claim.claim_id: (outcome_of(claim).decision, *outcome_of(claim).stages) for claim in CLAIMS}


def test_the_sample_ends_in_every_way():
    ends = {(outcome_of(claim).decision, outcome_of(claim).last_stage) for claim in CLAIMS}
    assert ends >= {("ClaimApproved", "pricing"), ("ClaimDenied", "eligibility"), ("ClaimDenied", "coverage")}


async def test_claims_are_decided_in_a_fixed_order_and_the_rest_reacts():
    async with running(services) as world:
        for claim in CLAIMS:
            await world.publish(claim)
        await world.settle()
        assert decided(world) == WANTED
        assert len(world.emitted(ClaimantNotified)) == len(CLAIMS)
        assert {saga.outcome for saga in world.sagas} == {"completed", "failed"}


async def test_a_retry_does_not_repeat_what_was_answered():
    with asked() as registers:
        async with running(services) as world:
            for claim in CLAIMS:
                await world.publish(claim)
            world.fail(adjudicate, ConnectionError, times=5, after=True)
            await world.advance("10m")
            assert decided(world) == WANTED
        assert registers.failed, "or it would show nothing"
        assert registers.findings(CLAIMS) == []


@pytest.mark.parametrize(("service", "point"), deaths(services))
async def test_a_service_that_dies_anywhere_decides_once(service, point):
    with asked() as registers:
        async with running(services) as world:
            world.crash_at(service, point, times=2)
            for claim in CLAIMS:
                await world.publish(claim)
            await world.advance("10m")
            assert world.crashes == {service.name: 2}
            assert decided(world) == WANTED
            assert len(world.emitted(ClaimantNotified)) == len(CLAIMS)
            kept = await world.fetch("claims-archive", "SELECT claim_id, kind FROM documents")
            assert len(kept) == len(set(kept)) == 3 * len(CLAIMS)
            totals = await world.fetch("claims-reporting", "SELECT sum(paid), sum(denied) FROM totals")
            ends = Counter(outcome_of(claim).decision for claim in CLAIMS)
            assert totals == [(ends["ClaimApproved"], ends["ClaimDenied"])]
        again = registers.answered.total() - sum(len(outcome_of(claim).stages) for claim in CLAIMS)
        if service is adjudication and point == "before commit":
            assert 0 <= again <= 2, "who dies with an answer that is not kept yet asks for that one again"
        else:
            assert registers.findings(CLAIMS) == []


async def test_nothing_that_reacts_can_stop_a_decision():
    """Not by hanging, not by failing for good."""
    async with running(services, dead_letters="keep") as world:
        world.fail("claims-archive.keep", ValueError("the archive is full"), times=1000)
        world.fail("claims-reporting.report", ValueError("no such peril"), times=1000)
        world.hang("claims-notices.notify", times=1000)
        for claim in CLAIMS:
            await world.publish(claim)
        await world.settle()
        assert decided(world) == WANTED
        assert world.emitted(ClaimantNotified) == []
        assert await world.fetch(adjudication, "SELECT count(*) FROM decisions") == [(len(CLAIMS),)]


async def test_the_demo_finds_nothing_wrong_and_traces_a_claim(log_url, tmp_path):
    result = await demo.run(settings_at(log_url, tmp_path), count=40)
    assert result.findings == []
    labels = list(result.counts)
    trail = labels[labels.index(f"the trail of claim {PAID.claim_id}") + 1 :]
    depths = [(len(label) - len(label.lstrip())) // 2 for label in trail]
    assert depths == [1, 2, 3]
    assert [label.split(",")[0].strip() for label in trail] == ["ClaimFiled", "ClaimApproved", "ClaimantNotified"]


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_an_adjudicator_killed_between_two_questions_goes_on_with_the_second(log_url: str, tmp_path: Path):
    settings, filed = settings_at(log_url, tmp_path), claims(8, 40)
    hold, notes = tmp_path / "hold", tmp_path / "asked"
    hold.touch()
    notes.touch()
    priced = sum(outcome_of(claim).last_stage == "pricing" for claim in filed)
    environment = {"CLAIMS_ASKED": str(notes), "CLAIMS_HOLD": str(hold)}

    def asked_for(stage: str) -> Counter[str]:
        lines = (line.split() for line in notes.read_text("utf-8").splitlines())
        return Counter(claim for claim, about in lines if about == stage)

    async with in_processes("tests.services.held_claims", services, settings, **environment) as flow:
        (victim,) = flow.of(adjudication)
        waiting = partial(_all_in, lambda: asked_for("pricing"), priced)
        await flow.kill_while(publish(flow.bus, filed), victim, once=waiting)
        hold.unlink()
        await flow.settle(partial(findings, settings.store, filed))
        assert log_findings(await flow.events(*TOPICS), filed) == []
    for stage in STAGES[:2]:
        wanted = Counter(claim.claim_id for claim in filed if stage in outcome_of(claim).stages)
        assert asked_for(stage) == wanted, "once for each claim, though the process died afterwards"
    assert set(asked_for("pricing").values()) == {2}, "the question that was not answered was asked again"


def _all_in(found, number: int) -> bool:
    return len(found()) == number


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_claims_are_decided_though_nobody_else_is_there_and_the_others_catch_up(log_url: str, tmp_path: Path):
    settings, filed = settings_at(log_url, tmp_path), claims(9, 60)
    async with in_processes("services.claims", services, settings) as flow:
        for service in LOOSE:
            (process,) = flow.of(service)
            process.kill()
        await publish(flow.bus, filed)
        await flow.settle(partial(decisions_findings, settings.store, filed), [adjudication])
        assert await flow.events("claims.notices") == []
        for service in LOOSE:
            (process,) = flow.of(service)
            process.start()
        await flow.settle(partial(findings, settings.store, filed))


async def test_the_audit_sees_a_wrong_decision(tmp_path):
    settings = settings_at("memory://", tmp_path)
    assert (await demo.run(settings, count=20)).findings == []
    told = findings(settings.store, claims(7, 21))
    last = claims(7, 21)[-1].claim_id
    wrong = [sentence.split()[0] for sentence in told if last in sentence]
    assert wrong == ["decisions", "documents", "documents", "documents", "letters"]
    assert any(sentence.startswith("totals") for sentence in told)
