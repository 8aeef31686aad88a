"""The Python in README and docs runs: each page's blocks, in order, as one module."""

import re
import sys
import types
from pathlib import Path

import pytest

from choreo import Choreography, Service, Settings, connect
from choreo.log.memory import MemoryLog
from choreo.runtime.run import running
from tests.support import eventually

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if "```python" in path.read_text("utf-8")
)


def module_of(page: Path, monkeypatch) -> types.ModuleType:
    module = types.ModuleType(f"page_{page.stem.replace('-', '_').lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), module.__dict__)  # noqa: S102 - our own pages
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_every_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = module_of(page, monkeypatch)
    Choreography.of(value for value in vars(module).values() if isinstance(value, Service))


async def test_the_service_of_the_readme_charges_and_declines(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    page = module_of(ROOT / "README.md", monkeypatch)
    settings = Settings(log="memory://", registry=str(tmp_path / "schemas"))
    async with MemoryLog() as log, running([page.payments], settings, log=log) as instances:
        async with connect(settings, log=log) as bus:
            await bus.publish(page.OrderPlaced(order_id="o-1", card="4711", total="99.50"))
            await bus.publish(page.OrderPlaced(order_id="o-2", card="4711", total="1000.01"))
        await eventually(lambda: instances["payments"].stats.handled == 2)
        instance = instances["payments"]
        rows = await instance._store.db.fetch_all("SELECT order_id FROM receipts")
        assert rows == [("o-1",)]
        assert instance.stats.emitted == 2


TESTING = ROOT / "docs" / "testing.md"


@pytest.mark.parametrize("name", re.findall(r"async def (test_\w+)", TESTING.read_text("utf-8")))
async def test_the_tests_of_the_page_about_testing_pass(name, monkeypatch):
    await getattr(module_of(TESTING, monkeypatch), name)()
