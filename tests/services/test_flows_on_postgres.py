"""The flows with PostgreSQL as the store of every service: the same SQL, the same outcome."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from choreo import Settings
from services import approval, claims, delivery, fraud, ingest, lake, onboarding, signup
from services.approval import sample as approval_sample
from services.claims import audit as claims_audit
from services.claims.sample import claims as sample_claims
from services.delivery import audit as delivery_audit
from services.delivery import demo as delivery_demo
from services.delivery.sample import parcels
from services.evidence import events
from services.fraud import audit as fraud_audit
from services.fraud.model import DEFAULT, Model
from services.fraud.sample import transactions
from services.ingest.sample import samples as ingest_files
from services.lake.sample import publish as publish_clicks
from services.lake.sample import sample as clicks_of_days
from services.onboarding.events import AccountRequested, AccountVerified
from services.signup.audit import users
from services.trial import Stage, staged
from tests.services.conftest import SCHEMAS


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> Settings:
    """Each service in a schema of its own, in a log of its own."""
    run = tmp_path.name.replace("-", "_")
    return Settings(
        log="memory://", store=f"{postgres_url}?schema={run}_{{service}}", registry=SCHEMAS, create_topics=True
    )


async def at_rest(stage: Stage) -> None:
    """All is read, and nothing is a dead letter."""
    assert (await stage.settle(list)).findings == []
    assert sum(instance.stats.dead_letters for instance in stage.instances.values()) == 0


async def test_signup(settings: Settings):
    registered = users(7, 30)
    async with staged(signup.services, settings) as stage:
        await stage.publish(registered, duplicates=0.2)
        await at_rest(stage)
        seen = await events(stage.log, settings, ["signup.emails", "signup.profiles"], stage.since)
    assert len(seen) == 2 * len(registered)


async def test_fraud(settings: Settings):
    made = transactions(7, 300)
    async with staged(fraud.services, settings) as stage:
        await stage.publish(made, duplicates=0.1)
        await at_rest(stage)
        seen = await events(stage.log, settings, ["fraud.scores", "fraud.verdicts"], stage.since)
    assert fraud_audit.log_findings(seen, fraud_audit.expected(made, Model(DEFAULT))) == []


async def test_claims(settings: Settings):
    filed = sample_claims(7, 40)
    async with staged(claims.services, settings) as stage:
        await stage.publish(filed, duplicates=0.1)
        await at_rest(stage)
        seen = await events(stage.log, settings, ["claims.decided"], stage.since)
    assert claims_audit.log_findings(seen, filed) == []


async def test_delivery(settings: Settings):
    booked = parcels(7, 8)
    topics = delivery_demo.TOPICS
    async with staged(delivery.services, settings) as stage:
        await stage.publish(booked, duplicates=0.1)
        await at_rest(stage)
        on_the_way = delivery_audit.dispatched(await events(stage.log, settings, topics, stage.since))
        await asyncio.gather(*(delivery_demo.drive(stage.bus, parcel, 7, 0.1, 50) for parcel in on_the_way))
        await at_rest(stage)
        seen = await events(stage.log, settings, topics, stage.since)
    assert delivery_audit.log_findings(seen, booked) == []


async def outcomes(stage: Stage, settings: Settings, topics: list[str]) -> Counter[str]:
    """How many events of each type there are in these topics."""
    return Counter(seen.metadata.type_name for seen in await events(stage.log, settings, topics, stage.since))


async def test_onboarding(settings: Settings):
    """One is verified, one wants a name that is taken; nobody looks into their stores here."""
    async with staged(onboarding.services, settings) as stage:
        first = AccountRequested(account_id="a-1", company="Ada", email="ada@example.com")
        saga = await stage.bus.publish(first)
        await at_rest(stage)
        await stage.bus.publish(first.model_copy(update={"account_id": "a-2"}))
        await stage.bus.publish(AccountVerified(account_id="a-1", administrator="grace"), correlation_id=saga)
        await at_rest(stage)
        found = await outcomes(stage, settings, ["onboarding.accounts", "onboarding.databases", "onboarding.tenants"])
    assert found == {
        "AccountRequested": 2,
        "TenantCreated": 1,
        "TenantRefused": 1,
        "DatabaseProvisioned": 2,
        "AccountActivated": 1,
        "AccountClosed": 1,
        "DatabaseDropped": 1,
    }


async def test_approval(settings: Settings):
    wanted = next(one for one in approval_sample.samples(7, 40) if one.story is approval_sample.Story.CHANGED_MIND)
    async with staged(approval.services, settings) as stage:
        saga = await stage.bus.publish(wanted.requested)
        await at_rest(stage)
        for answer in wanted.answers:
            await stage.bus.publish(answer, correlation_id=saga)
        await at_rest(stage)
        found = await outcomes(stage, settings, ["approval.decisions", "approval.refusals", "approval.purchases"])
    assert found == dict.fromkeys(("PurchaseRequested", "PurchaseApproved", "AnswerRefused", "PurchaseFulfilled"), 1)


async def test_ingest(settings: Settings, tmp_path: Path):
    chosen = ingest_files(7, 30, tmp_path)
    good = sum(sample.is_good for sample in chosen)
    async with staged(ingest.services, settings) as stage:
        await stage.publish([sample.arrived for sample in chosen], duplicates=0.2)
        await at_rest(stage)
        seen = await events(stage.log, settings, ["ingest.outcomes"], stage.since)
    assert Counter(one.metadata.type_name for one in seen) == {"FileLoaded": good, "FileRejected": 30 - good}
    loaded = {one.data["file_id"]: one.data["rows"] for one in seen if "rows" in one.data}
    assert loaded == {sample.arrived.file_id: sample.rows for sample in chosen if sample.is_good}


async def test_lake(settings: Settings):
    given = clicks_of_days(7, 300, last=date(2026, 1, 6))
    async with staged(lake.services, settings) as stage:
        await publish_clicks(settings, stage.log, given, duplicates=0.1)
        await at_rest(stage)
        told = await events(stage.log, settings, ["lake.days", "lake.late"], stage.since)
    assert Counter(one.metadata.type_name for one in told)["DayClosed"] == len(given.days)
    assert sum(one.data["clicks"] for one in told) == len(given.clicks)
