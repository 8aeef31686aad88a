"""Tests of services: the runtime of production over a log in memory and a virtual clock."""

from choreo.testing.saga import Saga, SagaEvent
from choreo.testing.stillness import NotSettledError
from choreo.testing.world import World, running

__all__ = ["NotSettledError", "Saga", "SagaEvent", "World", "running"]
