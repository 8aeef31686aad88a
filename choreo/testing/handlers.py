"""Handlers as a world calls them: counted while they are under way, and with what was planned for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from choreo.errors import ConfigurationError
from choreo.events import Event
from choreo.handler import Handler
from choreo.service import Service
from choreo.testing.link import Link


@dataclass
class _Failing:
    """Calls that are to fail: how many more, with what, and whether the handler's own code runs first."""

    error: BaseException | type[BaseException]
    left: int
    after: bool


class Calls:
    """The calls of all handlers of a world.

    Attributes:
        hanging: the handlers whose next calls hang, with how many.
    """

    def __init__(self, services: Sequence[Service]) -> None:
        self._handlers = [handler for service in services for handler in service.handlers.values()]
        self._under_way: dict[object, str] = {}
        self._hanging: dict[str, int] = {}
        self._hung: dict[object, Link] = {}
        self._failing: dict[str, list[_Failing]] = {}
        self._over = threading.Event()

    # --- plans ----------------------------------------------------------------------------------------------------

    def named(self, wanted: Callable[..., Any] | str) -> str:
        """The full name (`service.handler`) of a handler that is given by its function or its name.

        Raises:
            ConfigurationError: there is none, or there are several.
        """
        found = [each for each in self._handlers if wanted in (each.function, each.name, str(each))]
        if len(found) == 1:
            return str(found[0])
        shown = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", repr(wanted))
        known = ", ".join(map(str, found or self._handlers))
        what = f"{shown!r} is {'several handlers' if found else 'no handler'} of this world"
        raise ConfigurationError(what, remedy=f"name one of {known}")

    def fail(self, handler: str, error: BaseException | type[BaseException], *, times: int, after: bool) -> None:
        """Let the next calls fail."""
        self._failing.setdefault(handler, []).append(_Failing(error, times, after))

    def hang(self, handler: str, times: int) -> None:
        """Let the next calls hang until they are given up."""
        self._hanging[handler] = self._hanging.get(handler, 0) + times

    # --- calls ----------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> list[str]:
        """The calls under way, in words, without those that hang because they shall."""
        return [words for call, words in self._under_way.items() if call not in self._hung]

    @property
    def hung(self) -> int:
        """How many calls hang because they shall."""
        return sum(not link.dead for link in self._hung.values())

    def close(self) -> None:
        """Let threads go that hang."""
        self._over.set()

    def watched(self, service: Service, link: Link) -> Service:
        """The same service, its handlers called through here."""
        made = replace(service)
        for name, handler in service.handlers.items():
            call = self._called(handler, link) if handler.is_async else self._called_in_thread(handler, link)
            made.handlers[name] = replace(handler, function=wraps(handler.function)(call))
        return made

    def _called(self, handler: Handler, link: Link) -> Callable[..., Any]:
        name = str(handler)

        async def call(*args: Any) -> Any:
            with self._counted(name, args, link) as hangs:
                await link.reach("before handler")
                if hangs:
                    await asyncio.Event().wait()
                self._fail_if_planned(name, after=False)
                result = await handler.function(*args)
                self._fail_if_planned(name, after=True)
                await link.reach("after handler")
                return result

        return call

    def _called_in_thread(self, handler: Handler, link: Link) -> Callable[..., Any]:
        name = str(handler)

        def call(*args: Any) -> Any:
            with self._counted(name, args, link) as hangs:
                link.reach_in_thread("before handler")
                if hangs:
                    self._over.wait()
                self._fail_if_planned(name, after=False)
                result = handler.function(*args)
                self._fail_if_planned(name, after=True)
                link.reach_in_thread("after handler")
                return result

        return call

    @contextmanager
    def _counted(self, name: str, args: tuple[Any, ...], link: Link) -> Iterator[bool]:
        call = object()
        self._under_way[call] = f"{name} is handling {_words(args[0])}"
        hangs = self._hanging.get(name, 0) > 0
        if hangs:
            self._hanging[name] -= 1
            self._hung[call] = link
        try:
            yield hangs
        finally:
            del self._under_way[call]
            self._hung.pop(call, None)

    def _fail_if_planned(self, name: str, *, after: bool) -> None:
        for plan in self._failing.get(name, ()):
            if plan.left and plan.after == after:
                plan.left -= 1
                raise plan.error


def _words(event: Any) -> str:
    if isinstance(event, Event):
        return f"{event.contract.type_name} {getattr(event, event.contract.key)}"
    return f"{len(event)} events" if isinstance(event, list) else type(event).__name__
