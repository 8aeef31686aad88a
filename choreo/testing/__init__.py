"""Tests of services: the runtime of production over a log in memory and a virtual clock.

All is loaded on first use, so that the pytest plugin stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from choreo.testing.contracts import assert_contract
    from choreo.testing.saga import Saga, SagaEvent
    from choreo.testing.stillness import NotSettledError
    from choreo.testing.world import World, running

_LAZY = {
    "NotSettledError": "choreo.testing.stillness",
    "Saga": "choreo.testing.saga",
    "SagaEvent": "choreo.testing.saga",
    "World": "choreo.testing.world",
    "assert_contract": "choreo.testing.contracts",
    "running": "choreo.testing.world",
}

__all__ = ["NotSettledError", "Saga", "SagaEvent", "World", "assert_contract", "running"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'choreo.testing' has no attribute {name!r}")
