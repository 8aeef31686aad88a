"""The pytest plugin in a pytest of its own: the fixture, what a failing test shows, and what it costs those that do not use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

TESTS = """
from choreo import Event, Service

class Placed(Event, topic="orders", key="id"):
    id: str

class Paid(Event, topic="payments", key="id", ends="completed"):
    id: str
    amount: int

payments = Service("payments", store="sqlite:///touched.db")

@payments.on(Placed)
async def charge(order: Placed) -> Paid:
    return Paid(id=order.id, amount=100)

async def test_right(choreo_running):
    async with choreo_running(payments) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1", amount=100)]

async def test_wrong(choreo_running):
    async with choreo_running([payments]) as world:
        await world.publish(Placed(id="o-1"))
        await world.settle()
        assert world.emitted(Paid) == [Paid(id="o-1", amount=99), Paid(id="o-2", amount=1)]
"""


@pytest.fixture
def run(tmp_path):
    def run(tests: str = TESTS) -> str:
        (tmp_path / "test_it.py").write_text(tests, encoding="utf-8")
        settings = (
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
        )
        (tmp_path / "pytest.ini").write_text(settings, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "test_it.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    return run


def test_a_failing_test_shows_fields_and_sagas(run, tmp_path):
    said = run()
    assert "1 failed, 1 passed" in said, said
    assert "1 events, 2 expected" in said
    assert "[0] Paid.amount: 100, expected 99" in said
    assert "[1] is missing: Paid(id='o-2', amount=1)" in said
    assert said.count("choreo: what has happened") == 1
    assert "└─ Placed o-1, from test" in said
    assert "   └─ Paid o-1, from payments, ends it as completed" in said
    assert not (tmp_path / "touched.db").exists()


def test_who_does_not_use_it_loads_nothing_of_it(run):
    heavy = "'structlog', 'fastavro', 'confluent_kafka', 'choreo.testing.world', 'choreo.runtime.instance'"
    said = run(f"import sys\n\ndef test_nothing():\n    assert not {{{heavy}}} & sys.modules.keys()\n")
    assert "1 passed" in said, said
