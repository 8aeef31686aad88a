"""The flows with PostgreSQL as the store of every service: the same SQL, the same outcome."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from choreo import Settings
from services import claims, delivery, fraud, signup
from services.claims import audit as claims_audit
from services.claims.sample import claims as sample_claims
from services.delivery import audit as delivery_audit
from services.delivery import demo as delivery_demo
from services.delivery.sample import parcels
from services.evidence import events
from services.fraud import audit as fraud_audit
from services.fraud.model import DEFAULT, Model
from services.fraud.sample import transactions
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
