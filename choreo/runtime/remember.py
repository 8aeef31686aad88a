"""`ctx.step`: results of a handler's outside calls, kept in the store as soon as they are there."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter

from choreo.errors import ChoreoError
from choreo.runtime.partitions import AbandonedError, Job
from choreo.runtime.session import Session
from choreo.store.port import Effects, NewNote, Note
from choreo.wire.ids import note_key


class Steps:
    """The remembered steps of one handler run.

    Each is a note of the handler and what its call is about; who writes one with a number that is taken was not alone, and
    is run again.
    """

    def __init__(self, session: Session, job: Job, handler: str, about: str) -> None:
        self._session = session
        self._job = job
        self._key = note_key("results", handler, about)
        self._results: dict[str, bytes] | None = None
        self._used: set[str] = set()
        self._lock = asyncio.Lock()

    async def take(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], returns: Any) -> Any:
        """See `Context.step`."""
        adapter = adapter_of(function, returns)
        known = await self.known(name)
        if known is None:
            result = function(*args)
            known = dump(name, adapter, await result if inspect.isawaitable(result) else result)
            await self.remember(name, known)
        return adapter.validate_json(known)

    async def known(self, name: str) -> bytes | None:
        """The result that an earlier attempt has left."""
        if name in self._used:
            raise ChoreoError(f"ctx.step({name!r}) comes twice in one call", remedy="give each step a name of its own")
        if self._session.entered:
            raise ChoreoError(
                f"ctx.step({name!r}) comes after the first use of ctx.db",
                why="its result is committed at once, and what the handler wrote is not",
                remedy="make the steps first, then write",
            )
        self._used.add(name)
        async with self._lock:
            if self._results is None:
                found = await self._session.store.notes([self._key])
                self._results = {note.kind: note.content for note in found.get(self._key, [])}
                if found:
                    self._session.remembered = self._key
        if name not in self._results:
            self._session.check_free()  # before the outside call, whose result could not be kept
        return self._results.get(name)

    async def remember(self, name: str, result: bytes) -> None:
        """Keep a result, at once."""
        async with self._lock:
            results = self._results if self._results is not None else {}
            note = NewNote(self._key, Note(len(results), name, result), time.time_ns() // 1_000_000)

            async def write() -> None:
                if self._job.partition.gone:
                    raise AbandonedError
                await self._session.store.commit(Effects(progress={}, notes=[note]))

            await self._session.apart(write)
            results[name] = result
        self._session.remembered = self._key


def adapter_of(function: Callable[..., Any], returns: Any) -> TypeAdapter[Any]:
    """What writes and reads the results of a function.

    Raises:
        ChoreoError: pydantic knows no JSON for their type.
    """
    if returns is None:
        try:
            returns = get_type_hints(function).get("return", Any)
        except (NameError, TypeError, AttributeError):
            returns = Any
    try:
        return TypeAdapter(returns)
    except PydanticSchemaGenerationError as error:
        raise ChoreoError(
            f"the result of {function!r} cannot be remembered", why=str(error).partition("\n")[0]
        ) from error


def dump(name: str, adapter: TypeAdapter[Any], result: Any) -> bytes:
    """A result as JSON.

    Raises:
        ChoreoError: it has none.
    """
    try:
        return adapter.dump_json(result)
    except ValueError as error:
        remedy = "return what JSON can hold: numbers, texts, lists, pydantic models"
        raise ChoreoError(
            f"the result of ctx.step({name!r}) cannot be remembered", why=str(error), remedy=remedy
        ) from error
