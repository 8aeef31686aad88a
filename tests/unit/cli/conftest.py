"""A folder with a small choreography, and the command line run inside it, in this process or in one of its own."""

import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from choreo.cli import main

SHOP = """
from choreo import Context, Event, Failure, Service

class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str
    total: int

class PaymentCharged(Event, topic="payments", key="order_id"):
    order_id: str

class PaymentDeclined(Failure, topic="payments", key="order_id"):
    order_id: str

payments = Service("payments")
mail = Service("mail")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged | PaymentDeclined:
    if order.total == 13:
        raise ValueError("thirteen")
    kind = PaymentCharged if order.total < 1000 else PaymentDeclined
    return kind(order_id=order.order_id)

@mail.on(PaymentCharged, PaymentDeclined)
def tell(event: PaymentCharged | PaymentDeclined) -> None:
    pass
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self):
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder: module `cli_shop`, an embedded log, stores and schemas of its own. Further modules by `write`."""
    for name in [name for name in os.environ if name.startswith("CHOREO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    known = set(sys.modules)
    (tmp_path / "cli_shop.py").write_text(SHOP)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def cli(project, capsys, monkeypatch):
    """Runs one command line in this process; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*args, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def spawn(project):
    """Starts one command line as a process of its own; what still runs at the end is killed."""
    started = []

    def start(*args, **kwargs):
        code = "import sys; from choreo.cli import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            **kwargs,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def placed(cli):
    """Three orders in the log; returns their sagas."""
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "-", stdin=orders(1, 2, 3))
    assert ended.code == 0, ended.err
    return ended.out.split()


def orders(*numbers):
    """Orders o-1, o-2, ... as lines of JSON."""
    return b"".join(json.dumps({"order_id": f"o-{n}", "total": n}).encode() + b"\n" for n in numbers)
