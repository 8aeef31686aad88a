"""The pytest plugin: worlds as a fixture, and what has happened in them in the report of a test that fails.

It is loaded by every run of pytest where choreo is installed, so it imports nothing before a test uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from choreo.testing.world import World


@pytest.fixture
def choreo_running() -> Callable[..., World]:
    """`choreo.testing.running`, for tests that would rather not import it."""
    from choreo.testing.world import running

    return running


def pytest_runtest_setup() -> None:
    """Each test has worlds of its own."""
    if (module := sys.modules.get("choreo.testing.world")) is not None:
        module.made.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the story of each world of a test that has failed."""
    report = yield
    module = sys.modules.get("choreo.testing.world")
    if call.when == "call" and report.failed and module is not None:
        report.sections += [("choreo: what has happened", world.story()) for world in module.made]
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Show which fields of events differ."""
    if op != "==" or "choreo.events" not in sys.modules:
        return None
    from choreo.testing.differences import differences

    return differences(left, right)
