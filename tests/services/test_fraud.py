"""Fraud detection, on every log, with a model that goes away and scorers that die."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from choreo.testing import running
from services.books import rows
from services.fraud import demo, services
from services.fraud.audit import expected, findings, log_findings
from services.fraud.demo import TOPICS, away, own_model
from services.fraud.events import (
    TransactionApproved,
    TransactionBlocked,
    TransactionFlagged,
    TransactionMade,
    TransactionScored,
)
from services.fraud.model import DEFAULT, Model, ModelUnavailableError
from services.fraud.sample import transactions
from services.fraud.scorer import scorer
from services.fraud.verdicts import BLOCK_FROM, FLAG_FROM, verdict_on
from services.trial import publish
from tests.services.flow_processes import Flow, deaths, in_processes, settings_at
from tests.support import eventually

HARMLESS, ODD, STOLEN = (
    TransactionMade(
        transaction_id=name, card_id=f"card-{name}", amount=Decimal(amount), category=category, country=country,
        home_country="DE",
    )
    for name, amount, category, country in (
        ("t1", "20.00", "groceries", "DE"),
        ("t2", "3000.00", "fuel", "US"),
        ("t3", "3000.00", "gambling", "US"),
    )
)  # fmt: skip


async def test_each_branch_is_an_event_and_a_line_of_the_log():
    with capture_logs() as lines:
        async with running(services) as world:
            sagas = [await world.publish(made) for made in (HARMLESS, ODD, STOLEN)]
            await world.settle()
            ends = [saga.types[-1] for saga in sagas]
            assert [saga.outcome for saga in sagas] == ["completed", "completed", "failed"]
            cases = await world.fetch(
                "fraud-cases", "SELECT transaction_id, verdict FROM cases ORDER BY transaction_id"
            )
    assert ends == ["TransactionApproved", "TransactionFlagged", "TransactionBlocked"]
    assert cases == [("t2", "TransactionFlagged"), ("t3", "TransactionBlocked")]
    said = [line for line in lines if line["event"] == "verdict"]
    told = sorted((line["transaction_id"], line["verdict"], line["correlation_id"]) for line in said)
    assert told == sorted(zip(("t1", "t2", "t3"), ends, (saga.correlation_id for saga in sagas), strict=True))
    assert all(line["log_level"] == "info" and line["model"] == "2026-11" and line["score"] for line in said)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.0, TransactionApproved),
        (FLAG_FROM - 0.0001, TransactionApproved),
        (FLAG_FROM, TransactionFlagged),
        (BLOCK_FROM - 0.0001, TransactionFlagged),
        (BLOCK_FROM, TransactionBlocked),
        (1.0, TransactionBlocked),
    ],
)
def test_the_score_decides(score, verdict):
    scored = TransactionScored(transaction_id="t", card_id="c", amount=Decimal(1), score=score, model="m")
    assert type(verdict_on(scored)) is verdict


async def test_transactions_wait_for_a_model_that_is_away_and_none_is_dropped(tmp_path):
    made = transactions(7, 200)
    with own_model(tmp_path / "model.json") as model, capture_logs() as lines:
        async with running(services) as world:
            with away(model):
                for each in made:
                    await world.publish(each)
                await world.advance("10m")
                assert world.emitted(TransactionScored) == []
                assert world.dead_letters == []
            assert "circuit breaker opens: most calls fail, records wait" in {line["event"] for line in lines}
            tries = sum(line["event"] == "handler failed, trying again" for line in lines)
            assert tries < len(made), "most of them are not even tried while the circuit is open"
            await world.advance("1m")
            assert "circuit breaker closes: calls succeed again" in {line["event"] for line in lines}
            ends = [*world.emitted(TransactionApproved), *world.emitted(TransactionFlagged)]
            given = Counter(type(each).__name__ for each in [*ends, *world.emitted(TransactionBlocked)])
            assert given == Counter(expected(made, Model(DEFAULT)).values())


async def test_few_transactions_wait_too_though_no_circuit_opens_for_them(tmp_path):
    with own_model(tmp_path / "model.json") as model:
        async with running(services) as world:
            with away(model):
                await world.publish(STOLEN)
                await world.advance("10h")
                assert world.emitted(TransactionScored) == []
            await world.advance("10s")
            assert len(world.emitted(TransactionBlocked)) == 1


def test_a_new_model_is_taken_up_and_a_broken_one_is_none(tmp_path):
    with own_model(tmp_path / "model.json") as path:
        model = Model.of_environment()
        assert model.score(HARMLESS)[1] == "2026-11"
        text = path.read_text("utf-8")
        path.write_text(text.replace("2026-11", "2026-12-rc1"), "utf-8")
        assert model.score(HARMLESS)[1] == "2026-12-rc1"
        path.write_text("{", "utf-8")
        with pytest.raises(ModelUnavailableError, match=r"no model at .*model\.json"):
            model.score(HARMLESS)


@pytest.mark.parametrize(("service", "point"), deaths(services))
async def test_a_service_that_dies_anywhere_loses_and_doubles_nothing(service, point):
    made = transactions(3, 60)
    verdicts = expected(made, Model(DEFAULT))
    async with running(services) as world:
        world.crash_at(service, point)
        for each in made:
            await world.publish(each)
        await world.advance("1m")
        assert world.crashes == {service.name: 1}
        given = {
            one.transaction_id: type(one).__name__
            for kind in (TransactionApproved, TransactionFlagged, TransactionBlocked)
            for one in world.emitted(kind)
        }
        assert given == verdicts
        cases = await world.fetch("fraud-cases", "SELECT transaction_id, verdict FROM cases")
        assert sorted(cases) == sorted(item for item in verdicts.items() if item[1] != "TransactionApproved")


async def test_the_demo_finds_nothing_wrong(log_url, tmp_path):
    result = await demo.run(settings_at(log_url, tmp_path), count=600)
    assert result.findings == []
    assert result.data["dead_letters"] == 0
    assert sum(result.data["verdicts"].values()) == 600


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_two_scorers_share_the_work_and_one_that_is_killed_loses_nothing(log_url: str, tmp_path: Path):
    settings, made = settings_at(log_url, tmp_path), transactions(9, 1500)
    verdicts = expected(made, Model(DEFAULT))
    async with in_processes("services.fraud", services, settings, twice=[scorer]) as flow:
        both = flow.of(scorer)
        await eventually(lambda: all(map(_works, both)), patience=60)
        half = partial(rows, settings.store, "fraud-scorer", "SELECT 1 FROM choreo_inbox LIMIT 100, 1")
        await flow.kill_while(publish(flow.bus, made, duplicates=0.05), both[0], once=half)
        await flow.settle(partial(findings, settings.store, verdicts))
        assert log_findings(await flow.events(*TOPICS), verdicts) == []
        decided = [line for line in flow.of(services[1])[0].lines() if line["event"] == "verdict"]
        assert Counter(line["transaction_id"] for line in decided).keys() == verdicts.keys()


def _works(process) -> bool:
    """Whether it has partitions of transactions."""
    return any("fraud.transactions/" in str(line.get("partitions")) for line in process.lines())


@pytest.mark.parametrize("log_url", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_processes_wait_for_a_model_that_is_away(log_url: str, tmp_path: Path):
    """As an operator sees it: the scorer says why it waits, and goes on by itself."""
    settings, made = settings_at(log_url, tmp_path), transactions(11, 300)
    verdicts = expected(made, Model(DEFAULT))
    with own_model(tmp_path / "model.json") as model:
        async with in_processes("services.fraud", services, settings, FRAUD_MODEL=str(model)) as flow:
            with away(model):
                await publish(flow.bus, made)
                await eventually(partial(_has_opened, flow), patience=60)
            await flow.settle(partial(findings, settings.store, verdicts))
            assert log_findings(await flow.events(*TOPICS), verdicts) == []


def _has_opened(flow: Flow) -> bool:
    return any("circuit breaker opens" in str(line["event"]) for line in flow.of(scorer)[0].lines())
