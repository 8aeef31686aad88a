"""choreo: event-driven choreography on Kafka.

The declarations are imported here; what needs a log, a store or a schema is loaded on first use, so that
`import choreo` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from choreo.choreography import Choreography
from choreo.errors import ChoreoError, ConfigurationError, DeclarationError
from choreo.events import Event, Failure, Metadata
from choreo.retry import Retry
from choreo.routing import Route, route
from choreo.service import Service

if TYPE_CHECKING:
    from choreo.runtime.batches.context import BatchContext, SyncBatchContext
    from choreo.runtime.bus import Bus, SyncBus, connect, connect_sync
    from choreo.runtime.context import Context, SyncContext
    from choreo.runtime.settings import Settings

_LAZY = {
    "BatchContext": "choreo.runtime.batches.context",
    "Bus": "choreo.runtime.bus",
    "SyncBus": "choreo.runtime.bus",
    "connect": "choreo.runtime.bus",
    "connect_sync": "choreo.runtime.bus",
    "Context": "choreo.runtime.context",
    "SyncBatchContext": "choreo.runtime.batches.context",
    "SyncContext": "choreo.runtime.context",
    "Settings": "choreo.runtime.settings",
}

__all__ = [
    "BatchContext",
    "Bus",
    "ChoreoError",
    "Choreography",
    "ConfigurationError",
    "Context",
    "DeclarationError",
    "Event",
    "Failure",
    "Metadata",
    "Retry",
    "Route",
    "Service",
    "Settings",
    "SyncBatchContext",
    "SyncBus",
    "SyncContext",
    "connect",
    "connect_sync",
    "route",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'choreo' has no attribute {name!r}")
