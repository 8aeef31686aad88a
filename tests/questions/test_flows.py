"""Every question about every flow of `services/`, on the embedded log and on a real Kafka."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from choreo.choreography import Choreography
from choreo.cli.load import load_services
from choreo.log import open_log
from choreo.saga.export import FORMATS, export
from choreo.saga.questions import Questions
from choreo.saga.questions.fromlog import read_now
from choreo.saga.views import diff, ledger, sequence, summary, table, timeline, tree
from choreo.saga.views.lines import plain
from choreo.wire import open_registry
from tests.support import keep_for_ever

ROOT = Path(__file__).parents[2]
FLOWS = sorted(found.parent.name for found in ROOT.glob("services/*/demo.py"))
RESTING = {"completed", "compensated", "partially-compensated", "failed", "waiting"}


def demo(flow: str, log: str, folder: Path) -> None:
    command = [str(Path(sys.executable).parent / "choreo"), "demo", flow, "--count", "6", "--json", "--log", log]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "CHOREO_REGISTRY": str(ROOT / "schemas")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"] == []


async def ask_everything(flow: str, address: str) -> None:
    graph = Choreography.of(load_services([f"services.{flow}"])).graph
    async with (
        open_log(address) as log,
        aclosing(open_registry(str(ROOT / "schemas"))) as registry,
        read_now(log, graph) as store,
    ):
        questions = Questions(store, log, registry, graph)
        rows = (await questions.list(limit=100)).rows
        assert rows
        assert {row.state for row in rows} <= RESTING, [(row.state, row.reason) for row in rows]
        assert plain(table.lines(rows, now_ms=questions.now(), width=100))
        numbers = await questions.stats()
        assert numbers.sagas == sum(numbers.states.values()) >= len(rows)
        assert (await questions.funnel(numbers.types[0].type)).steps
        verified = await questions.verify_all(limit=500)
        assert verified.checked >= len(rows)
        assert verified.broken == ()
        await _ask_about(rows[0].saga, rows[-1].saga, questions)


async def _ask_about(one: str, other: str, questions: Questions) -> None:
    shown, sentences = await questions.why(one)
    saga, graph = shown.saga, questions.graph
    assert sentences[0].startswith(f"The saga is {saga.state}")
    rows = tree.rows(saga, graph, fold=len(saga.events))
    assert sum(row.kind == "event" for row in rows) == len(saga.events)
    assert len(sequence.arrows(saga)) == len(saga.events)
    for lines in (
        summary.lines(saga, now_ms=shown.now_ms),
        tree.lines(rows),
        sequence.lines(saga),
        timeline.lines(saga),
        ledger.lines(saga),
    ):
        assert plain(lines)
    two = (await questions.show(other)).saga
    assert diff.diff(saga, two, graph)
    for to in FORMATS:
        assert export([saga], graph, to)
    for event in (saga.events[0], saga.events[-1]):
        _, records = await questions.record(one, event.id)
        assert records[0].data is not None, records
        assert records[0].schema
    then = (await questions.show(one, as_of=saga.started_ms)).saga
    assert 1 <= len(then.events) <= len(saga.events)
    if saga.key:
        found = await questions.show(saga.key)
        assert saga.id in {found.saga.id, *found.others}


@pytest.mark.parametrize("flow", FLOWS)
def test_on_the_embedded_log(flow: str, tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/log.db"
    demo(flow, log, tmp_path)
    asyncio.run(ask_everything(flow, log))


@pytest.mark.kafka
@pytest.mark.parametrize("flow", FLOWS)
def test_on_kafka(flow: str, tmp_path: Path, kafka_bootstrap: str) -> None:
    log = f"kafka://{kafka_bootstrap}"
    asyncio.run(keep_for_ever(load_services([f"services.{flow}"]), log))
    demo(flow, log, tmp_path)
    asyncio.run(ask_everything(flow, log))
